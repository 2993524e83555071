"""`datasets` itself, against a stand-in of the hub, its own cache, or a clone on disk.

The address of the hub is read when the client is imported: it runs in a process of its own, once
for all tests of this module.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import public_trees
from loopback import Hub, hub, serving

SCRIPT = """
import json, sys
from pathlib import Path
from chestxray.errors import ChestXrayError
from chestxray.recipe import Recipe
from chestxray.data.sources import load_index
for name, given in json.loads(sys.argv[2]).items():
    try:
        index = load_index(Recipe(**given), Path(sys.argv[1]))
        found = {"rows": index.rows.to_dict("records"), "classes": index.classes, "name": index.name}
    except ChestXrayError as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({name: found}))
"""
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["NORMAL", "PNEUMONIA"], "_type": "ClassLabel"},
    "child": {"dtype": "string", "_type": "Value"},
}


def film(number):
    buffer = io.BytesIO()
    public_trees.phantom(number).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(numbers, name="person{}_virus_{}.png", label=lambda number: number % 2):
    table = pa.table(
        {
            "image": [{"bytes": film(n), "path": name.format(n, n)} for n in numbers],
            "label": pa.array([label(n) for n in numbers], pa.int64()),
            "child": [f"c{n}" for n in numbers],
        }
    )
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer)
    return buffer.getvalue()


def repositories():
    files = {
        "data/train-00000-of-00001.parquet": parquet(range(8)),
        "data/test-00000-of-00001.parquet": parquet(range(8, 12)),
        "README.md": b"---\nlicense: cc-by-4.0\n---\n",
    }
    # Two configurations side by side, in a branch of their own.
    converted = {f"{part}/{split}/0000.parquet": parquet(range(*span)) for part, split, span in (
        ("full", "train", (0, 6)), ("full", "validation", (6, 8)), ("full", "test", (8, 10)), ("mini", "train", (0, 2)),
    )}  # fmt: skip
    return {
        "plain": Hub("hf-vision/chest-xray-pneumonia", files),
        "broken off": Hub("someone/broken-off", files, cut=2000),
        "converted": Hub("keremberke/chest-xray-classification", converted, revisions=("refs/convert/parquet",)),
        "script": Hub("someone/script", {"script.py": b"import os\n", "README.md": b""}),
        "unlabelled": Hub("someone/unlabelled", {"train.parquet": parquet(range(4), label=lambda n: -1)}),
        "empty": Hub("someone/empty", {"README.md": b""}),
    }


ONLINE = {
    "catalogue": {"data": "kermany-hf"},
    "broken off": {"data": "hf:someone/broken-off"},
    "broken off, again": {"data": "hf:someone/broken-off"},
    "converted": {"data": "keremberke"},
    "patient column": {"data": "hf:hf-vision/chest-xray-pneumonia", "data_option": "patient_column=child"},
    "splits": {"data": "hf:hf-vision/chest-xray-pneumonia", "data_option": "splits=train=test,test=train"},
    "one split": {"data": "hf:hf-vision/chest-xray-pneumonia", "data_option": "splits=test"},
    "no such split": {"data": "hf:hf-vision/chest-xray-pneumonia", "data_option": "splits=night"},
    "no such column": {"data": "hf:hf-vision/chest-xray-pneumonia", "data_option": "label_column=finding"},
    "no such image": {"data": "hf:hf-vision/chest-xray-pneumonia", "data_option": "image_column=label"},
    "no such patient": {"data": "hf:hf-vision/chest-xray-pneumonia", "data_option": "patient_column=finding"},
    "no such revision": {"data": "hf:hf-vision/chest-xray-pneumonia", "data_option": "revision=v9"},
    "no such folder": {"data": "hf:hf-vision/chest-xray-pneumonia", "data_option": "data_dir=nowhere"},
    "no such set": {"data": "hf:someone/nothing"},
    "script": {"data": "hf:someone/script"},
    "unlabelled": {"data": "hf:someone/unlabelled"},
    "empty": {"data": "hf:someone/empty"},
    "401": {"data": "hf:nobody/refuses-401"},
    "403": {"data": "hf:nobody/refuses-403"},
    "404": {"data": "hf:nobody/refuses-404"},
    "no address": {"data": "hf:a/b/c"},
}
OFFLINE = {
    "written": {"data": "kermany-hf"},
    "in the cache of datasets": {"data": "hf:hf-vision/chest-xray-pneumonia", "data_option": "config=default"},
    "unknown": {"data": "hf:someone/unknown"},
}


def ask(cases, cache, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(cache), json.dumps(cases)],
        capture_output=True, text=True, check=False, env=os.environ | environment, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What comes of `ONLINE`, then of `OFFLINE` with the server gone, then of a clone on disk."""
    root = tmp_path_factory.mktemp("hub")
    own = {"HF_HOME": str(root / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": ""}
    served = repositories()
    clone = root / "clone"
    for name, content in served["plain"].files.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(content)
    with serving(hub(*served.values())) as server:
        online = ask(ONLINE, root / "cache", HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}", **own)
    here = {"clone": {"data": "kermany-hf", "path": str(clone)}, "clone, as hf:": {"data": f"hf:{clone}"}}
    # The same address, so that the cache of `datasets` is the same; nobody listens there any more.
    gone = f"http://127.0.0.1:{server.server_port}"
    return online | ask(OFFLINE | here, root / "cache", HF_ENDPOINT=gone, HF_HUB_OFFLINE="1", **own)


def column(answer, name):
    return [row[name] for row in answer["rows"]]


def test_images_are_the_files_they_were(answers):
    found = answers["catalogue"]
    assert found["classes"] == ["normal", "pneumonia"]
    assert found["name"] == "kermany-hf"
    by_name = {row["path"].rpartition("-")[2]: row for row in found["rows"]}
    row = by_name["person9_virus_9.png"]
    assert Path(row["path"]).read_bytes() == film(9)
    assert (row["label"], row["split"], row["patient"]) == ("pneumonia", "test", "test/-person9")
    assert by_name["person3_virus_3.png"]["patient"] == "person3"


def test_a_download_that_broke_off_ends_well(answers):
    # Whether the client itself tries again or the second command does.
    assert "error" not in answers["broken off"] or "could not be had" in answers["broken off"]["error"]
    assert len(answers["broken off, again"]["rows"]) == 12


def test_the_parquet_conversion_is_read_without_its_small_brother(answers):
    found = answers["converted"]
    assert sorted(column(found, "split")) == ["test"] * 2 + ["train"] * 6 + ["validation"] * 2


def test_columns_and_splits_can_be_chosen(answers):
    assert set(column(answers["patient column"], "patient")) == {f"c{n}" for n in range(12)}
    assert column(answers["splits"], "split").count("test") == 8
    assert set(column(answers["one split"], "split")) == {"test"}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no such split", "InputError: splits must be NAME or NAME=train.*train, test.*Received: 'night'"),
        ("no such column", "InputError: Which column of .* is the class.*one of label, child.*Received: finding"),
        ("no such image", "InputError: Which column of .* is the image.*one of image. Received: label"),
        ("no such patient", "InputError: .* has no column 'finding'.*Its columns: image, label, child"),
        ("no such revision", "DataError: hf:.* has no such revision"),
        ("no such folder", "DataError: hf:.* could not be had"),
        ("no such set", r"DataError: hf:someone/nothing could not be had: it does not exist or is private"),
        ("script", "DataError: .*loading script.*revision=refs/convert/parquet"),
        ("unlabelled", "DataError: someone/unlabelled has an image without a class"),
        ("empty", "DataError: hf:someone/empty could not be had"),
        ("401", "DataError: .*does not exist or is private"),
        ("403", "DataError: .*access is forbidden .403."),
        ("404", "DataError: .*does not exist"),
        ("no address", "InputError: hf: needs OWNER/NAME"),
        ("unknown", "DataError: hf:someone/unknown could not be had: no connection to the hub.*--path"),
    ],
)
def test_what_goes_wrong_is_one_line(answers, case, message):
    import re

    error = answers[case]["error"]
    assert re.search(message, error), error
    assert "\n" not in error


def test_without_a_network_what_was_written_or_cached_serves(answers):
    assert answers["written"]["rows"] == answers["catalogue"]["rows"]
    assert len(answers["in the cache of datasets"]["rows"]) == 12


def test_a_clone_on_disk_is_read(answers):
    found = answers["clone"]
    assert found["classes"] == ["normal", "pneumonia"]
    assert len(found["rows"]) == 12
    assert set(column(found, "source")) == {"kermany-hf"}
    assert answers["clone, as hf:"]["name"] == "clone"
