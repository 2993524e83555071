"""``--log-json``: every line on standard error is an object, of progress, warnings, mistakes and defects alike."""

import io
import json
import logging
import subprocess
import sys
import warnings

import click
import pytest

from chestxray.cli import main
from chestxray.progress import bars, json_lines

CHESTXRAY = [sys.executable, "-c", "from chestxray.cli.main import main; main()"]


@pytest.fixture
def stream():
    """What is logged as JSON until the end of the test."""
    found = io.StringIO()
    json_lines.speak(stream=found)
    yield found
    logging.captureWarnings(False)
    logging.getLogger("py.warnings").handlers = []


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_training_is_told_in_lines_with_the_figures_of_each_epoch(tmp_path):
    arguments = [
        "run", "--model", "shallow_cnn", "--data", "phantom:patients=24,size=32", "--image-size", "16", "--epochs", "2",
        "--batch-size", "8", "--replicates", "100", "--no-controls", "--heatmaps", "0", "--output", "run",
    ]  # fmt: skip
    done = subprocess.run(
        [*CHESTXRAY, "--log-json", *arguments], capture_output=True, text=True, timeout=400, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    found = lines(done.stderr)
    for line in found:
        assert line["time"].endswith("Z") and line["level"] in ("info", "warning") and line["message"]
        assert line["logger"].startswith("chestxray")
    steps = list(dict.fromkeys(line["step"] for line in found if "step" in line))
    wanted = ["decoding", "split and audit", "load", "build", "train", "predict", "evaluate", "explain", "report"]
    assert [step for step in steps if step in wanted] == wanted
    epochs = [line for line in found if "val_loss" in line]
    assert [(line["epoch"], line["epochs"]) for line in epochs] == [(1, 2), (2, 2)]
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    place = history[0].split(",").index("val_loss")
    assert [line["val_loss"] for line in epochs] == pytest.approx([float(row.split(",")[place]) for row in history[1:]])
    decoding = [line for line in found if line.get("step") == "decoding"][-1]
    assert decoding["done"] == decoding["total"] > 0
    assert "auroc" in done.stdout and "auroc" not in done.stderr


def test_a_mistake_is_a_line_with_its_exit_code(tmp_path):
    for arguments, word in (
        (["run", "--model", "no_such_net"], "no_such_net"),
        (["run", "--no-such-option"], "--no-such-option"),
    ):
        command = [*CHESTXRAY, "--log-json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)
        assert done.returncode == 2
        line = lines(done.stderr)[-1]
        assert line["level"] == "error" and word in line["message"] and line["exit_code"] == 2


@pytest.mark.parametrize("error", [RuntimeError("a defect"), OSError(5, "no disk")], ids=["defect", "system"])
def test_a_defect_is_a_line_with_its_places(monkeypatch, stream, error):
    @click.command()
    def fails():
        raise error

    monkeypatch.setattr(main, "group", fails)
    monkeypatch.setattr(sys, "argv", ["chestxray"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 1
    (line,) = lines(stream.getvalue())
    assert (line["level"], line["exception"]) == ("critical", type(error).__name__)
    assert line["reason"] == str(error) and any("test_log_json.py" in place for place in line["raised"])


def test_quiet_leaves_warnings_and_errors(stream):
    json_lines.speak(quiet=True, stream=stream)
    logging.getLogger("chestxray.workflow").info("nothing of note")
    logging.getLogger("chestxray.workflow").warning("of note")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("another package's", stacklevel=1)
    said = lines(stream.getvalue())
    assert [line["level"] for line in said] == ["warning", "warning"]
    assert said[0]["message"] == "of note" and "another package's" in said[1]["message"]


def test_progress_is_a_line_now_and_then_and_one_at_the_end(monkeypatch, stream):
    monkeypatch.setattr(bars, "EVERY", 0.0)
    with bars.progress("Decoding", 30, 10) as advance:
        advance(15)
        advance(5)
    found = lines(stream.getvalue())
    assert [(line["step"], line["done"], line["total"]) for line in found] == [
        ("decoding", 25, 30),
        ("decoding", 30, 30),
    ]
    monkeypatch.setattr(bars, "EVERY", 1000.0)
    with bars.progress("Decoding", 30) as advance:
        advance(30)
    assert [line["done"] for line in lines(stream.getvalue())[2:]] == [30]


def test_what_is_not_finite_is_null(stream):
    fields = {"loss": float("nan"), "val_loss": float("inf"), "accuracy": 0.5}
    logging.getLogger("chestxray.training").info("Epoch", extra={"fields": fields})
    (line,) = lines(stream.getvalue())
    assert (line["loss"], line["val_loss"], line["accuracy"]) == (None, None, 0.5)
