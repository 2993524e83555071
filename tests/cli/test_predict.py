"""`chestxray predict` as a user meets it: what is written where, what is gone on with, what is refused."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from chestxray.cli import main
from chestxray.data.images.listing import listed
from chestxray.errors import ChestXrayError
from chestxray.evaluation.predictions import Predictions
from chestxray.inference import keras_engine, shards
from chestxray.inference.answer import abstaining
from chestxray.inference.output_file import alone
from chestxray.inference.overlay_files import overlay_name
from public_trees import too_deep
from run_folders import CLASSES, SIZE, pixels_of, write_run

PROBABILITIES = ("probability_clear", "probability_sick")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("predict") / "run")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Seven films of noise, one file that is none, another picture, and a folder below."""
    root = tmp_path_factory.mktemp("films")
    for n in range(7):
        Image.fromarray(pixels_of(1, 50 + n)[0]).save(root / f"{n}.png")
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (root / "notes.txt").write_text("no image")
    Image.fromarray(np.zeros(SIZE, dtype=np.uint8)).save(root / "black.png")
    (root / "below").mkdir()
    Image.fromarray(pixels_of(1, 90)[0]).save(root / "below" / "0.png")
    return root


@pytest.fixture
def call(monkeypatch, capsysbinary):
    def call(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["chestxray", "predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        out, err = capsysbinary.readouterr()
        assert stopped.value.code == code, err.decode()
        return out.decode(), err.decode()

    return call


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_an_image(call, run, films):
    out, err = call(run, films, "--batch-size", 4)
    rows = table(out)
    assert [row["path"] for row in rows] == [str(films / name) for name in sorted(
        ["broken.png", "black.png", *(f"{n}.png" for n in range(7))])]  # fmt: skip
    engine = keras_engine.load_engine(run)
    for row in rows:
        if row["path"].endswith("broken.png"):
            assert row["unreadable"]
            assert row["decision"] == row["probability_sick"] == row["refused"] == ""
            continue
        with Image.open(row["path"]) as film:
            given = engine.run(np.asarray(film)[np.newaxis])
        assert float(row["probability_sick"]) == pytest.approx(given.probabilities[0, 1], abs=1e-6)
        assert float(row["distance"]) == pytest.approx(given.distances[0], rel=1e-3)
        far = given.distances[0] > engine.refusal_threshold
        assert row["refused"] == str(far).lower()
        assert row["decision"] == ("" if far else CLASSES[engine.decision.decided(given.probabilities)[0]])
    assert next(row for row in rows if row["path"].endswith("black.png"))["refused"] == "true"
    assert err.splitlines()[-2].startswith("9 images: ")
    assert "1 unreadable" in err


@pytest.mark.slow
def test_workers_write_what_one_process_writes(call, run, films, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "FEWEST", 6)
    monkeypatch.chdir(films.parent)
    options = [run, films.name, "--recursive", "--batch-size", 2, "--estimate-prevalence"]
    alone, _ = call(*options, "--heatmaps", tmp_path / "alone")
    several, said = call(*options, "--heatmaps", tmp_path / "several", "--workers", 2)
    assert several == alone
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert len(names) > 5
    for name in names:
        assert (tmp_path / "several" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert "10 images: " in said
    # What has an answer is not predicted again, by whomever it was given.
    call(*options[:-1], "--output", tmp_path / "a.csv")
    assert "Nothing is left to do." in call(*options[:-1], "--output", tmp_path / "a.csv", "--workers", 2)[1]


def test_a_share_is_predicted_only_with_the_run_of_the_driver(run, tmp_path):
    request = shards.Request(run, "another", tmp_path, None, None, batch_size=2, max_pixels=10**6)
    with pytest.raises(ChestXrayError, match=r"has another run in .* than the driver"):
        shards.share_of(request, [])
    with pytest.raises(ChestXrayError, match=r"does not see .*/gone: images and run must be seen by the same path"):
        shards.share_of(dataclasses.replace(request, folder=tmp_path / "gone"), [])


def test_shares_are_of_whole_batches():
    for count, batch, workers in ((1, 32, None), (9, 4, 3), (10_000, 48, 2), (100_000, 4096, None)):
        shares = shards.split(["x"] * count, batch, workers)
        assert [begin for begin, _ in shares] == [0, *(end for _, end in shares[:-1])]
        assert shares[-1][1] == count
        assert all(begin % batch == 0 for begin, _ in shares)
        assert all(end - begin < shards.MOST + batch for begin, end in shares)


def test_json_and_jsonl_hold_what_the_table_holds(call, run, films, tmp_path):
    rows = table(call(run, films)[0])
    as_list = json.loads(call(run, films, "--json")[0])
    call(run, films, "--output", tmp_path / "a.jsonl")
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == as_list
    call(run, films, "--output", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == as_list
    for row, content in zip(rows, as_list, strict=True):
        assert row["path"] == content["path"]
        assert row["decision"] == (content["decision"] or "")
        assert row["unreadable"] == (content["unreadable"] or "")
        if content["probabilities"]:
            assert float(row["probability_sick"]) == content["probabilities"]["sick"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_is_gone_on_with(call, run, films, tmp_path, kind):
    whole, output = tmp_path / f"whole.{kind}", tmp_path / f"output.{kind}"
    call(run, films, "--recursive", "--output", whole)
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:4]) + lines[4][:9])
    _, err = call(run, films, "--recursive", "--output", output)
    assert f"{4 - (kind == 'csv')} of 10 images have a row" in err
    again = output.read_bytes().splitlines(keepends=True)
    assert again[:4] == lines[:4]
    assert [line.split(b",")[0] for line in again] == [line.split(b",")[0] for line in lines]
    assert "Nothing is left to do" in call(run, films, "--recursive", "--output", output)[1]
    # Cut within its first line, it is begun anew.
    output.write_bytes(content[:5])
    call(run, films, "--recursive", "--output", output)
    assert len(output.read_bytes().splitlines()) == len(lines)


def test_a_file_of_something_else_is_left_alone(call, run, films, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    (other / "decision.json").write_text((run / "decision.json").read_text().replace("hand", "eye"))
    output = tmp_path / "a.csv"
    call(run, films, "--output", output)
    before = output.read_bytes()
    for arguments, words in [
        ((other, films), "holds answers of another run, or by other options"),
        ((run, films, "--abstain", "0.8"), "holds answers of another run, or by other options"),
        ((run, films, "--heatmaps", tmp_path / "maps"), "holds other columns"),
        ((run, films, "--jsonl"), "holds other columns"),
        ((run, films, "--json"), "one JSON list cannot be gone on with"),
    ]:
        assert words in call(*arguments, "--output", output, code=2)[1]
        assert output.read_bytes() == before
    (tmp_path / "shopping.csv").write_text("milk,2\n")
    assert "holds other columns" in call(run, films, "--output", tmp_path / "shopping.csv", code=2)[1]
    assert "is a folder" in call(run, films, "--output", tmp_path, code=2)[1]


def test_abstaining(call, run, films):
    rows = table(call(run, films, "--abstain", "0.5")[0])
    read = [row for row in rows if not row["unreadable"]]
    engine = keras_engine.load_engine(run)
    limit = abstaining(run, engine.decision, 0.5).limit
    for row in read:
        inside = [name for name in CLASSES if 1 - float(row[f"probability_{name}"]) <= limit]
        sick = float(row["probability_sick"]) >= engine.decision.threshold
        assert row["set"] == ("|".join(inside) or "-")
        assert row["abstained"] == str(inside != [CLASSES[sick]]).lower()
        assert row["decision"] == ("" if "true" in (row["abstained"], row["refused"]) else CLASSES[sick])
    _, err = call(run, films, "--abstain", "0.999")
    assert "Validation is too small" in err


def test_probabilities_are_told_for_another_prevalence_and_decisions_stay(call, run, films):
    plain, there = (table(call(run, films, *options)[0]) for options in ((), ("--prevalence", "0.02")))
    validation = Predictions.read(run / "predictions.csv").of("validation")
    share = (validation.rows["label"] == "sick").mean()
    factor = 0.02 / 0.98 * (1 - share) / share
    for before, after in zip(plain, there, strict=True):
        assert {**before, "run": "", **dict.fromkeys(PROBABILITIES)} == {
            **after,
            "run": "",
            **dict.fromkeys(PROBABILITIES),
        }
        if not before["unreadable"]:
            clear, sick = (float(before[name]) for name in PROBABILITIES)
            odds = sick / clear * factor
            assert float(after["probability_sick"]) == pytest.approx(odds / (1 + odds), abs=1e-6)
    for wrong in ("0", "1", "nan"):
        assert "prevalence must be a share above 0 and below 1" in call(run, films, "--prevalence", wrong, code=2)[1]


def test_the_classes_shares_are_estimated_without_labels_and_on_what_assumption(call, run, films, tmp_path):
    out, err = call(run, films, "--estimate-prevalence", "--output", tmp_path / "a.csv")
    assert not out
    told = " ".join(err.split())
    assert "here, by the probabilities (95% interval)" in told and "here, by the decisions" in told
    assert "among 7 images, each counted as a patient, without labels" in told
    assert "label shift" in told
    plain = table(call(run, films)[0])
    assert table((tmp_path / "a.csv").read_text(encoding="utf-8")) == plain, "answers are the same"


def test_overlays_have_names_of_their_own(call, run, films, tmp_path):
    out, _ = call(run, films, films / "below" / "0.png", "--heatmaps", tmp_path / "maps")
    rows = table(out)
    names = [row["heatmap"] for row in rows if row["heatmap"]]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == sorted(names)
    assert len(set(names)) == len(names)
    for row in rows:
        assert bool(row["heatmap"]) == (not row["unreadable"] and row["refused"] == "false")
    with Image.open(tmp_path / "maps" / names[0]) as picture:
        assert (picture.mode, picture.size) == ("RGB", SIZE[::-1])


def test_no_name_leaves_its_folder():
    hostile = ["../../etc/passwd", "a/..", "/", "a\0b", "c:\\x.png", "x" * 500, ".hidden", "ü/ß.png", "a\udce4.png"]
    names = [overlay_name(path) for path in hostile]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.isascii()
        assert not set(name) & set('/\\\0:"')
        assert not name.startswith(".")
        assert len(name) < 100
    assert overlay_name("a/0.png") != overlay_name("b/0.png")


def test_images_are_found(films, tmp_path, draw):
    assert len(listed([films])) == 9
    assert len(listed([films], recursive=True)) == 10
    assert listed([films / "notes.txt", films / "notes.txt"]) == [str(films / "notes.txt")]
    for name in ("in/.hidden/0.png", "in/__MACOSX/0.png", "in/.0.png", "in/deep/0.PNG"):
        draw(tmp_path / name, 0)
    (tmp_path / "in" / "IM000001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "in" / "README").write_text("no image")
    (tmp_path / "in" / "deep" / "circle").symlink_to(tmp_path / "in")
    found = listed([tmp_path / "in"], recursive=True)
    assert found == [str(tmp_path / "in" / "IM000001"), str(tmp_path / "in" / "deep" / "0.PNG")]
    (tmp_path / "in" / "IM000001").unlink()
    with pytest.raises(ChestXrayError, match="Folders below it are searched with --recursive"):
        listed([tmp_path / "in"])


def test_what_is_not_among_the_images_is_named(call, run, films, tmp_path):
    for name in ("0.png", "1.GIF", "notes.txt", "below/0.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(films / "0.png", tmp_path / "in" / name)
    (tmp_path / "in" / "1.GIF").write_bytes(b"GIF89a")
    (tmp_path / "in" / "lost").symlink_to(tmp_path / "nowhere")
    out, err = call(run, tmp_path / "in")
    reasons = {row["path"].rpartition("/")[2]: row["unreadable"] for row in table(out)}
    assert reasons.keys() == {"0.png", "1.GIF", "lost"}
    assert reasons["1.GIF"].startswith("not an image in a known format (PNG, JPEG, TIFF, BMP, DICOM)")
    assert reasons["lost"] == "No such file or directory"
    assert "Skipped, not images by their suffix: 1 .txt." in err
    assert "Folders below that are not searched without --recursive: 1." in err
    assert "3 images: " in err
    assert "2 unreadable" in err
    (tmp_path / "deep").mkdir()
    shutil.copy(films / "0.png", tmp_path / "deep" / "0.png")
    too_deep(tmp_path / "deep")
    out, err = call(run, tmp_path / "deep", "--recursive")
    assert [row["unreadable"] for row in table(out)] == ["", "File name too long"]
    assert "Cannot be listed: " in err
    for name, words in (("x" * 300, "Cannot be reached (File name too long)"), ("none.png", "No such file or folder")):
        assert words in call(run, tmp_path / name, code=2)[1]


def test_wrong_input(call, run, films, tmp_path):
    (tmp_path / "empty").mkdir()
    plain = shutil.copytree(run, tmp_path / "plain")
    (plain / "heatmaps" / "index.json").write_text('{"layer": null, "reason": "none"}')
    bare = shutil.copytree(run, tmp_path / "bare")
    (bare / "model.keras").unlink()
    for arguments, words in [
        ((tmp_path / "empty", films), "is not a run"),
        ((bare, films), "holds predictions and no weights"),
        ((run, tmp_path / "absent.png"), "No such file or folder"),
        ((run, tmp_path / "empty"), "No images in"),
        ((run, films, "--json", "--csv"), "Only one of --csv, --json and --jsonl"),
        ((run, films, "--abstain", "95"), "abstain must be a coverage above 0 and below 1"),
        ((run, films, "--heatmaps", films / "0.png"), "--heatmaps must be a folder"),
        ((plain, films, "--heatmaps", tmp_path / "maps"), "has no heat maps"),
        ((run,), "PATH"),
        ((run, films, "--batch-size", "0"), "--batch-size"),
    ]:
        out, err = call(*arguments, code=2)
        assert words in err
        assert not out


def test_damaged_weights_leave_no_output(call, run, films, tmp_path):
    bad = shutil.copytree(run, tmp_path / "bad")
    (bad / "model.keras").write_bytes(b"PK no model")
    assert "cannot be loaded" in call(bad, films, "--output", tmp_path / "a.csv", code=2)[1]
    assert not (tmp_path / "a.csv").exists()


def test_nothing_readable_is_told_by_the_exit_code(call, run, films):
    out, err = call(run, films / "broken.png", films / "notes.txt", code=1)
    assert len(table(out)) == 2
    assert "2 images: 0 decided, 2 unreadable" in err


def test_two_calls_do_not_write_to_one_file(call, run, films, tmp_path):
    output = tmp_path / "a.csv"
    with alone(output):
        assert "Another chestxray predict writes to" in call(run, films, "--output", output, code=2)[1]
    assert not output.exists()


def test_odd_names_are_gone_on_with(call, run, films, tmp_path):
    (tmp_path / "in").mkdir()
    names = ["=1+1.png", "a\rb.png", "a\nb.png", "'=1.png"]
    for name in names:
        shutil.copy(films / "0.png", tmp_path / "in" / name)
    os.mkfifo(tmp_path / "in" / "pipe.png")
    output = tmp_path / "a.csv"
    with contextlib.chdir(tmp_path / "in"):
        call(run, *names, "pipe.png", "--output", output)
        assert "Nothing is left to do" in call(run, *names, "pipe.png", "--output", output)[1]
    rows = list(csv.DictReader(io.StringIO(output.read_bytes().decode(), newline="")))
    assert [row["path"] for row in rows] == ["'=1+1.png", "a\rb.png", "a\nb.png", "''=1.png", "pipe.png"]
    assert rows[-1]["unreadable"] == "it is a pipe and no file"


def test_who_reads_our_output_may_go(run, films):
    code = "from chestxray.cli.main import main; main()"
    command = [sys.executable, "-c", code, "predict", str(run), str(films), "--batch-size", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith(b"path,decision")
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=200)
    process.stderr.close()
    assert b"Traceback" not in err, err.decode()
