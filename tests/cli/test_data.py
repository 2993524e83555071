"""`chestxray data`, through the command line."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import public_trees
from chestxray.cli.data import command


@pytest.fixture
def run():
    def inner(*arguments):
        done = CliRunner().invoke(command, [str(argument) for argument in arguments], standalone_mode=False)
        if done.exception:
            raise done.exception
        return done

    return inner


@pytest.fixture
def leaky(tmp_path):
    """Two classes with an official split, a copy across it, a patient across it, and a text."""
    for split, numbers in (("train", range(8)), ("test", range(8, 12))):
        for n in numbers:
            for k, label in enumerate(("NORMAL", "PNEUMONIA")):
                public_trees.film(tmp_path / "xrays" / split / label / f"p{n}{k}_0.png", 400 + 2 * n + k)
    public_trees.film(tmp_path / "xrays" / "train" / "NORMAL" / "p99_0.png", 400 + 16)
    public_trees.film(tmp_path / "xrays" / "train" / "NORMAL" / "p90_1.png", 399)
    (tmp_path / "xrays" / "train" / "NORMAL" / "p77_0.png").write_text("no image")
    return f"folder:{tmp_path / 'xrays'}"


SMALL = ("--image-size", "32", "--patient-pattern", r"(p\d+)_")


def test_list_shows_the_catalogue(run):
    printed = run("list").output
    assert "covid19-xray-train-test" in printed
    assert "98 images, not 10,000" in printed
    found = {entry["name"]: entry for entry in json.loads(run("list", "--json").output)}
    assert found["kermany"]["megabytes"] == 1230
    assert found["kermany"]["on_disk"] is None


def test_show_counts_what_there_is(run, leaky, tmp_path):
    found = json.loads(run("show", leaky, *SMALL, "--json").output)
    assert found["images"] == 27
    assert found["counts"]["NORMAL"] == {"train": 11, "test": 4}
    assert found["width"] == {"smallest": 32, "median": 32, "largest": 32}
    assert found["modes"] == {"L": 26}
    assert found["patients"]["patients"] == 27 - 1
    assert found["exact_duplicates"] == 2
    assert found["unreadable"][0]["reason"].startswith("not an image")
    printed = run("show", leaky, *SMALL, "--output", tmp_path / "figures").output
    assert "Patients: 26 known, of 27 images; one has up to 2." in printed
    drawn = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert drawn == ["class_distribution.png", "intensities.png", "sample_grid.png", "sizes.png", "source_by_class.png"]
    for path in (tmp_path / "figures").iterdir():
        with Image.open(path) as image:
            assert image.width > 200


def test_show_of_several_sets_counts_by_source(run, leaky, tmp_path):
    root = public_trees.kermany(tmp_path / "k")
    printed = run("show", leaky, "kermany", "--path", root, "--image-size", "32").output
    assert "images by class and source" in printed
    assert "xrays + kermany: 39 images of 2 classes" in printed


def test_audit_finds_the_leaks_and_says_so_with_its_exit_code(run, leaky):
    done = run("audit", leaky, *SMALL)
    assert done.return_value == 1
    found = json.loads(run("audit", leaky, *SMALL, "--json").output)
    assert found["leaks"] is True
    assert len(found["exact_duplicates"]["across_splits"]) == 1
    assert [item["patient"] for item in found["patients"]["across_splits"]] == ["p90"]
    assert len(found["unreadable"]) == 1
    for text in ("Copies on both sides:", "p90 of xrays: train, test", "p77_0.png: not an image"):
        assert text in done.output


def test_audit_draws_contact_sheets_and_finds_near_copies(run, leaky, tmp_path):
    large = tmp_path / "large"
    for split, label, name, number, quality in (
        ("train", "NORMAL", "a", 1, 90), ("train", "PNEUMONIA", "b", 2, 90), ("train", "NORMAL", "c", 3, 90),
        ("test", "NORMAL", "d", 1, 60), ("test", "PNEUMONIA", "e", 4, 90), ("test", "NORMAL", "f", 2, 60),
    ):  # fmt: skip
        coarse = np.random.default_rng(number).integers(0, 256, (24, 24), dtype=np.uint8)
        path = large / split / label / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((160, 160)).save(path, quality=quality)
    done = run("audit", f"folder:{large}", "--image-size", "96", "--output", tmp_path / "sheets")
    assert done.return_value == 1
    for text in ("near copies across splits", "Near copies on both sides:", "Different labels:", "d.jpg"):
        assert text in done.output
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["near_duplicates.png"]
    found = json.loads(run("audit", f"folder:{large}", "--image-size", "96", "--json").output)
    assert found["severity"] == "critical"
    assert len(found["near_duplicates"]["groups"]) == len(found["near_duplicates"]["across_splits"]) == 2
    (conflict,) = found["conflicting_labels"]
    assert sorted(conflict["labels"].values()) == ["NORMAL", "PNEUMONIA"]
    assert {"name", "association", "p"} <= set(found["confounds"][0])


def test_audit_of_a_clean_set_exits_with_0(run, tmp_path):
    root = public_trees.covid19_train_test(tmp_path)
    assert run("audit", "covid19-xray-train-test", "--path", root, "--image-size", "32").return_value == 0


def test_audit_covers_the_data_to_test_on(run, leaky, tmp_path):
    public_trees.film(tmp_path / "other" / "NORMAL" / "copy.png", 400)
    public_trees.film(tmp_path / "other" / "PNEUMONIA" / "own.png", 900)
    found = run("audit", leaky, "--test-data", f"folder:{tmp_path / 'other'}", "--image-size", "32", "--json")
    across = json.loads(found.output)["exact_duplicates"]["across_splits"]
    assert len(across) == 1
    assert any(path.endswith("copy.png") for path in across[0])


def test_prepare_decodes_once(run, leaky, tmp_path):
    first = run("prepare", leaky, "--image-size", "32", "--cache", tmp_path / "cache").output
    assert "27 images of xrays, 1 of them unreadable" in first
    assert run("prepare", leaky, "--image-size", "32", "--cache", tmp_path / "cache").output == first


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_export_writes_the_audited_split_set(run, leaky, tmp_path, form):
    said = run("export", leaky, tmp_path / "out", "--to", form, *SMALL, "--on-leak", "drop").output
    # Of 27 images one is no image, one has its copy and one its patient in the test.
    assert "24 images written" in said
    assert "3 left out" in said


def test_mistakes_are_one_line(tmp_path):
    code = "from chestxray.cli import main; main.COMMANDS['data'] = ''; main.main()"
    for arguments, message in (
        (["show", "kermani"], "Error: Unknown data 'kermani'. Did you mean kermany"),
        (["show", "folder:nowhere"], "Error: No folder 'nowhere'"),
        (["audit", "kermany", "--path", "nowhere"], "Error: No such file or folder: 'nowhere'"),
    ):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, "data", *arguments],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.startswith(message)
        assert done.stderr.count("\n") == 1


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from chestxray.cli.data import command; command(['list', '--json'], standalone_mode=False);"
        "print([n for n in ('tensorflow', 'keras', 'datasets', 'matplotlib', 'sklearn') if n in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.real_data
def test_the_real_leaks_are_found(run, real_data):
    done = run("audit", f"folder:{real_data / 'covid19-three-class'}", "--image-size", "32")
    assert done.return_value == 1
    line = next(line for line in done.output.splitlines() if "copies across splits" in line)
    assert line.split("│")[2].strip() == "6"
