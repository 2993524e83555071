"""Rows of answers: what a name may hold, and one writer at a time."""

import csv
import io
import os
import subprocess
import sys

import pytest

from chestxray.errors import OutputError
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.inference.answer import unreadable
from chestxray.inference.output_file import Lines, alone, appending, done

NAMES = [
    "plain.png",
    "=HYPERLINK(1).png",
    "@x", "+x", "-x", "\tx", "\rx", "\nx",
    "'=x", "''=x", "'x", "'", "-", "'-", "=",
    "a\rb.png", "a\r\nb.png", "a\nb.png", 'a"b.png', "a,b.png", " =x", "bytes \udce4.png", "ü.png", "",
]  # fmt: skip


def rule(*classes):
    return Decision(classes, None, Calibration(), {}, "")


def written(path, lines, names):
    with appending(path) as write:
        write(lines.opening)
        write(lines.of([unreadable(name, "no image", rule()) for name in names], [None] * len(names)))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_every_name_comes_back_as_it_was(tmp_path, kind):
    path, lines = tmp_path / "a", Lines(kind, rule("dark", "bright"), "run")
    written(path, lines, NAMES)
    size = path.stat().st_size
    assert done(path, lines) == set(NAMES)
    assert path.stat().st_size == size


def test_a_spreadsheet_takes_no_name_for_a_formula(tmp_path):
    path, lines = tmp_path / "a.csv", Lines("csv", rule("=1+1", "bright"), "run")
    written(path, lines, NAMES)
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert len(rows) == 1 + len(NAMES)
    assert {len(row) for row in rows} == {len(lines.columns)}
    for row in rows:
        for cell in row:
            assert cell == "-" or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert [row[0] for row in rows[1:4]] == ["plain.png", "'=HYPERLINK(1).png", "'@x"]


def test_a_name_that_an_earlier_version_wrote_is_known(tmp_path):
    path, lines = tmp_path / "a.csv", Lines("csv", rule("dark"), "run")
    row = ["=x.png", *[""] * (len(lines.columns) - 2), "run"]
    path.write_bytes(lines.opening + ",".join(row).encode() + b"\n")
    assert done(path, lines) == {"=x.png"}


def test_one_file_has_one_writer(tmp_path):
    path, link = tmp_path / "a.csv", tmp_path / "link.csv"
    link.symlink_to(path)
    program = (
        "import sys; from pathlib import Path; from chestxray.inference.output_file import alone\n"
        "with alone(Path(sys.argv[1])):\n    print('locked', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
    )
    with other:
        assert other.stdout.readline() == b"locked\n"
        for name in (path, link):
            with pytest.raises(OutputError, match="Another chestxray predict writes to"), alone(name):
                raise AssertionError
        with alone(tmp_path / "b.csv"):
            pass
        # A writer that is killed leaves no lock.
        other.kill()
    with alone(path):
        pass
