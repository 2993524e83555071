"""Images that are no files on disk: a source opens their keys, and everything else reads files in the cache."""

import logging
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chestxray import workflow
from chestxray.data.decoded import decode, readable
from chestxray.data.sources import load_index, opened_keys
from chestxray.errors import DataError
from chestxray.plugin import Index
from chestxray.recipe import Recipe
from chestxray.storage import cache, cache_check, seal

PAGE = Path(__file__).parents[3] / "docs" / "write-a-source.md"
ARCHIVE = next(
    code
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if "zipfile" in code
)
#: Counts what is opened; breaks what it is asked to.
COUNTED = """
from chestxray.plugin import Index, SourcePlugin

FILMS, OPENED = {}, []

def load(address, options):
    records = [{"path": key, "label": key.split("/")[0], "view": view} for key, (content, view) in FILMS.items()]
    return Index.from_records(records, name=address)

def open_key(key):
    OPENED.append(key)
    content = FILMS[key][0]
    if isinstance(content, Exception):
        raise content
    return content

plugin = SourcePlugin(load=load, open=open_key, address_help="anything", options={})
"""


def install(name, code, folder, monkeypatch):
    """Install a source as a distribution of its own, and return its module when it is first loaded."""
    (folder / f"{name}_module.py").write_text(code, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[chestxray.sources]\n{name} = {name}_module:plugin\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)
    __import__(f"{name}_module")
    return sys.modules[f"{name}_module"]


@pytest.fixture
def zipped(tmp_path, folder, monkeypatch):
    """The address of the images of `folder` in a ZIP archive."""
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, path.relative_to(folder))
    (tmp_path / "site").mkdir()
    install("zipped", ARCHIVE, tmp_path / "site", monkeypatch)
    return f"zipped:{tmp_path / 'films.zip'}"


@pytest.fixture
def counted(tmp_path, folder, monkeypatch):
    """A source whose images are in memory."""
    (tmp_path / "site").mkdir()
    module = install("counted", COUNTED, tmp_path / "site", monkeypatch)
    for path in sorted(folder.rglob("*.png")):
        module.FILMS[path.relative_to(folder).as_posix()] = (path.read_bytes(), "PA")
    return module


def pixels(index, tmp_path):
    return decode(index, (16, 16), "stretch", tmp_path / "cache")


def test_the_source_on_the_page_takes_fewer_than_40_lines():
    assert len(ARCHIVE.splitlines()) < 40


def test_an_archive_gives_the_pixels_of_its_files(zipped, folder, tmp_path):
    index = load_index(Recipe(data=zipped), tmp_path / "cache")
    plain = load_index(Recipe(data=f"folder:{folder}"), tmp_path / "cache")
    names = index.rows["key"].str.split("|").str[1]
    assert names.tolist() == [str(Path(path).relative_to(folder)) for path in plain.rows["path"]]
    assert index.rows["path"].str.startswith(str(tmp_path / "cache" / "opened")).all()
    assert np.array_equal(pixels(index, tmp_path).pixels, pixels(plain, tmp_path).pixels)


def test_a_run_is_trained_from_an_archive(zipped, tmp_path):
    recipe = Recipe(model="shallow_cnn", data=zipped, image_size=16, epochs=1, batch_size=8, replicates=100, heatmaps=1)
    run = workflow.run(recipe, output=tmp_path / "run")
    assert set(run.predictions.rows["path"]) <= set(run.index.rows["path"])
    assert run.metrics["rows"] and list((run.folder / "heatmaps").iterdir())
    assert (run.folder / "report.html").is_file()
    assert "films.zip|" in run.index.rows["key"].iloc[0]


def test_each_key_is_opened_once(counted, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="chestxray")
    recipe = Recipe(data="counted:all")
    first = load_index(recipe, tmp_path / "cache")
    assert sorted(counted.OPENED) == sorted(counted.FILMS)
    assert f"Opened {len(first)} images of counted:all." in caplog.messages
    again = load_index(recipe, tmp_path / "cache")
    assert len(counted.OPENED) == len(counted.FILMS)
    pd.testing.assert_frame_equal(first.rows, again.rows)
    # A set that grows costs what is new.
    counted.FILMS["normal/new.png"] = next(iter(counted.FILMS.values()))
    load_index(recipe, tmp_path / "cache")
    assert counted.OPENED[-1] == "normal/new.png" and len(counted.OPENED) == len(counted.FILMS)
    (entry,) = (one for one in cache.entries(tmp_path / "cache") if one.kind == "opened")
    assert cache_check.verify(entry) == ("whole", [])
    assert len(seal.read(entry.path)) == len(counted.FILMS)


def test_masks_have_keys_too(counted, tmp_path):
    keys = list(counted.FILMS)
    records = [{"path": key, "label": "a", "lung_mask": keys[-1] if n else ""} for n, key in enumerate(keys[:3])]
    index = opened_keys.keyed(Index.from_records(records, name="made"), "counted")
    rows = opened_keys.as_files(index, {"counted": counted.open_key}, tmp_path / "cache").rows
    assert sorted(counted.OPENED) == sorted([*keys[:3], keys[-1]])
    assert rows["lung_mask"].iloc[0] == "" and rows["lung_mask"].iloc[1] == rows["lung_mask"].iloc[2]
    assert Path(rows["lung_mask"].iloc[1]).read_bytes() == counted.FILMS[keys[-1]][0]


def test_images_that_are_left_out_are_not_opened(counted, tmp_path):
    keys = list(counted.FILMS)
    for key in keys[:5]:
        counted.FILMS[key] = (counted.FILMS[key][0], "lateral")
    index = load_index(Recipe(data="counted:all"), tmp_path / "cache")
    assert len(index) == len(counted.OPENED) == len(keys) - 5
    assert not set(counted.OPENED) & set(keys[:5])


def test_what_cannot_be_opened_counts_as_unreadable_and_is_tried_again(counted, tmp_path, caplog):
    keys = list(counted.FILMS)
    good = counted.FILMS[keys[1]]
    counted.FILMS[keys[1]] = (ConnectionError("the server closed the line\nand more"), "PA")
    counted.FILMS[keys[2]] = ("text", "PA")
    counted.FILMS[keys[3]] = (b"", "PA")
    index = load_index(Recipe(data="counted:all"), tmp_path / "cache")
    found = readable(index, pixels(index, tmp_path), 0.1).rows.set_index("key")["unreadable"]
    assert found[found != ""].to_dict() == {
        keys[1]: f"{keys[1]} cannot be opened (ConnectionError: the server closed the line)",
        keys[2]: f"{keys[2]} was opened as str, not as bytes",
        keys[3]: "the file is empty",
    }
    assert sum(keys[1] in line for line in caplog.messages) == 1
    with pytest.raises(DataError, match="3 of 48 images cannot be read"):
        readable(index, pixels(index, tmp_path), 0.05)
    counted.FILMS[keys[1]] = good
    again = load_index(Recipe(data="counted:all"), tmp_path / "cache")
    assert counted.OPENED[len(keys) :] == keys[1:3]
    mended = readable(again, pixels(again, tmp_path), 0.1).rows.set_index("key")["unreadable"]
    assert set(mended.index[mended != ""]) == {keys[2], keys[3]}


def test_a_set_of_which_nothing_can_be_opened_is_one_error(counted, tmp_path):
    for key in counted.FILMS:
        counted.FILMS[key] = (PermissionError("no ticket"), "PA")
    index = load_index(Recipe(data="counted:all"), tmp_path / "cache")
    with pytest.raises(DataError, match=r"None of the 24 images of class 'normal'.*PermissionError: no ticket"):
        readable(index, pixels(index, tmp_path), 0.5)


def test_sets_with_keys_and_with_paths_are_merged(counted, folder, tmp_path):
    del counted.FILMS[next(iter(counted.FILMS))]
    index = load_index(Recipe(data=("counted:all", f"folder:{folder}")), tmp_path / "cache")
    assert (index.rows["key"] != "").sum() == len(counted.FILMS)
    assert pixels(index, tmp_path).facts["unreadable"].eq("").all()
    assert set(index.rows.columns) & {opened_keys.OPENER, "unreadable"} == set()


def test_a_command_that_is_stopped_leaves_whole_files_and_goes_on(counted, tmp_path):
    keys = list(counted.FILMS)
    # Not an Exception: it stops the command, as Ctrl-C does.
    good, counted.FILMS[keys[40]] = counted.FILMS[keys[40]], (b"", "PA")

    class Stopped(BaseException):
        pass

    def until_40(key):
        if key == keys[40]:
            raise Stopped
        return counted.FILMS[key][0]

    index = opened_keys.keyed(Index.from_records([{"path": key, "label": "a"} for key in keys], name="made"), "counted")
    with pytest.raises(Stopped):
        opened_keys.as_files(index, {"counted": until_40}, tmp_path / "cache")
    kept = list((tmp_path / "cache" / "opened").rglob("*.png"))
    assert len(kept) == 40
    counted.FILMS[keys[40]] = good
    opened_keys.as_files(index, {"counted": counted.open_key}, tmp_path / "cache")
    assert sorted(counted.OPENED) == sorted(keys[40:])


def test_what_a_killed_process_left_and_what_was_damaged_is_opened_again(counted, tmp_path, caplog):
    first = load_index(Recipe(data="counted:all"), tmp_path / "cache")
    damaged = Path(first.rows["path"].iloc[3])
    content = damaged.read_bytes()
    damaged.write_bytes(content[:50])
    part = damaged.with_name(".part-half")
    part.write_bytes(b"half")
    load_index(Recipe(data="counted:all"), tmp_path / "cache")
    assert counted.OPENED[-1] == first.rows["key"].iloc[3] and len(counted.OPENED) == len(first) + 1
    assert damaged.read_bytes() == content and not part.exists()
    assert f"Damaged in the cache: {damaged}. It is opened again." in caplog.messages
    # A changed byte is found when the image is decoded.
    damaged.write_bytes(content[:-1] + b"\0")
    with pytest.raises(DataError, match=r"1 images of opened/.* in the cache are damaged"):
        pixels(first, tmp_path)


def test_many_keys_are_not_in_memory_at_once():
    waiting, most = 0, 0

    def open_key(key):
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return b"x"

    for _ in opened_keys._contents([str(n) for n in range(500)], open_key):
        waiting -= 1
    assert most <= 3 * opened_keys.THREADS
