"""Run folders in which one file was damaged, exchanged or made up: one line each, or the answer that was before."""

import json
import random
import shutil

import click
import numpy as np
import pytest

import made_runs
from chestxray.cli.main import group
from chestxray.errors import ChestXrayError
from chestxray.evaluation.decision.out_of_distribution import FeatureDistribution
from chestxray.inference import keras_engine
from chestxray.recipe import Recipe
from chestxray.report import html_report
from chestxray.storage import checksums
from run_folders import pixels_of, write_ensemble
from run_folders import write_run as write_model

VALUES = (None, True, -1, 10**400, float("nan"), 1e999, "", "x", "a\0b", "\ud800", [], {}, [[]], [None], {"a": 1})


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluated")
    return [
        made_runs.write_run(root / name, made_runs.TWO, heatmaps={"layer": None, "reason": "none"}) for name in "ab"
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("trained") / "run")


def told(work, *arguments, **options):
    """The message of the one error that may come of it; None where there was none."""
    try:
        work(*arguments, **options)
    except (ChestXrayError, click.ClickException) as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return str(error)
    return None


def answered(folder):
    return keras_engine.load_engine(folder).run(pixels_of(1))


def compared(one, other, output):
    command = ["--quiet", "compare", str(one), str(other), "--output", str(output), "--replicates", "100"]
    return told(group, command, standalone_mode=False)


def places(value, inside=()):
    """Every node of a JSON value, as the keys that lead there."""
    yield inside
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*inside, key))


def replaced(value, place, new):
    if not place:
        return new
    copy = json.loads(json.dumps(value))
    parent = copy
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = new
    return copy


@pytest.mark.parametrize("name", ["metrics.json", "environment.json", "audit.json"])
def test_any_value_of_any_kind_anywhere(evaluated, tmp_path, name):
    folder = shutil.copytree(evaluated[0], tmp_path / "run")
    content = json.loads((folder / name).read_text())
    rng = random.Random(1)
    found = list(places(content))
    for place in rng.sample(found, min(len(found), 8)):
        (folder / name).write_text(json.dumps(replaced(content, place, rng.choice(VALUES))))
        compared(folder, evaluated[1], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metrics.json", b"[" * 100_000, "nested too deeply"),
        ("metrics.json", b'{"positive": "PNEUMONIA"}', "is missing"),
        ("metrics.json", b"\xff\xfe", "damaged"),
        ("environment.json", b"[]", "must be a table"),
        ("environment.json", b'{"data": {}}', "data.name is missing"),
        (
            "environment.json",
            b'{"data": {"name": "x"}, "seconds": {"train": "long"}}',
            "seconds.train must be a number",
        ),
        ("environment.json", b'{"data": {"name": "x"}, "model": 3}', "model must be a table"),
        ("audit.json", b'{"near_duplicates": 3}', "near_duplicates must be a table"),
        ("controls.json", b"3", "must be a table"),
        ("predictions.csv", b"", "cannot be read as a table"),
        ("predictions.csv", b"\xff\xfe\0", "cannot be read as a table"),
        ("predictions.csv", b"path,label\na,b\n", "not a table of predictions"),
        ("index.parquet", b"PAR1" + bytes(100) + b"PAR1", r"index\.parquet is damaged"),
    ],
)
def test_compare_on_damaged_files(evaluated, tmp_path, name, content, words):
    folder = shutil.copytree(evaluated[0], tmp_path / "run")
    (folder / name).write_bytes(content)
    message = compared(folder, evaluated[1], tmp_path / "out")
    assert message
    assert words.replace("\\", "") in message
    assert name in message


def test_compare_on_numbers_that_are_none(evaluated, tmp_path):
    folder = shutil.copytree(evaluated[0], tmp_path / "run")
    lines = (folder / "predictions.csv").read_text().splitlines()
    *kept, last = lines[5].rsplit(",", 2)
    for odd in ("nan", "inf", "-0.5", "0.5x", "", "1" * 400):
        changed = [*lines[:5], ",".join([*kept, last if len(kept) == 2 else "0", odd]), *lines[6:]]
        (folder / "predictions.csv").write_text("\n".join(changed))
        said = str(compared(folder, evaluated[1], tmp_path / "out"))
        assert "predictions.csv is damaged" in said or "predictions.csv cannot be read as a table" in said
    for column in ("label", "predicted", "split"):
        header = lines[0].split(",")
        cells = lines[5].split(",")
        cells[header.index(column)] = "COVID"
        (folder / "predictions.csv").write_text("\n".join([*lines[:5], ",".join(cells), *lines[6:]]))
        assert f"the column {column} must have" in str(compared(folder, evaluated[1], tmp_path / "out"))


def test_a_report_of_damaged_files(evaluated, tmp_path):
    folder = shutil.copytree(evaluated[0], tmp_path / "run")
    for name in (
        "metrics.json",
        "audit.json",
        "history.csv",
        "index.parquet",
        "predictions.csv",
        "heatmaps/index.json",
    ):
        path = folder / name
        good = path.read_bytes()
        for content in (b"[" * 100_000, good[: len(good) // 2], b"\xff" * 50, b"[]"):
            path.write_bytes(content)
            assert path.name in str(told(html_report.write, folder)), (name, content[:10])
        path.write_bytes(good)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("image_size = [1.5, 8]", "whole pixels from 1 to"),
        ("image_size = [true, 8]", "whole pixels from 1 to"),
        ("image_size = [inf, 8]", "whole pixels from 1 to"),
        ("image_size = 1000000000000", "whole pixels from 1 to"),
        ("learning_rate = inf", "finite number"),
        ("learning_rate = nan", "at least 0. Received: nan"),
        (f"replicates = {10**400}", "more than 30 digits"),
        (f"validation_share = {10**400}", "more than 30 digits"),
        (f"replicates = {2**40}", "at most 2147483647"),
        ('fit = [["pad"]]', "must be one of"),
    ],
)
def test_recipes_of_absurd_values(tmp_path, field, words):
    (tmp_path / "recipe.toml").write_text(field + "\n")
    assert words in str(told(Recipe.read, tmp_path / "recipe.toml"))


def test_every_kind_of_damage_to_a_model_is_one_line(trained, tmp_path):
    checksums.write(trained, ("model.keras", "refusal.npz"))
    before = keras_engine.load_engine(trained).run(pixels_of(2)).probabilities
    np.testing.assert_array_equal(keras_engine.load_engine(trained).run(pixels_of(2)).probabilities, before)
    rng = random.Random(2)
    for name in ("model.keras", "refusal.npz"):
        good = (trained / name).read_bytes()
        for _ in range(6):
            folder = shutil.copytree(trained, tmp_path / "run", dirs_exist_ok=True)
            damaged = bytearray(good)
            damaged[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(damaged)
            message = told(answered, folder)
            assert message is not None
            assert f"{name} is damaged: it is not the file that was written there" in message


def test_damage_that_has_its_checksum_is_one_line_or_the_same_answer(trained, tmp_path):
    good = {name: (trained / name).read_bytes() for name in ("model.keras", "refusal.npz")}
    rng = random.Random(3)
    for name, content in good.items():
        for kind in ("cut", "cut", "zeros", "flip", "flip", "flip", "empty", "text"):
            folder = shutil.copytree(trained, tmp_path / "run", dirs_exist_ok=True)
            (folder / checksums.FILE).unlink(missing_ok=True)
            damaged = bytearray(content)
            if kind == "flip":
                for _ in range(50):
                    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            made = {
                "cut": damaged[: rng.randrange(len(damaged))],
                "zeros": bytes(len(damaged)),
                "empty": b"",
                "text": b"[",
            }
            (folder / name).write_bytes(made.get(kind, damaged))
            message = told(answered, folder)
            assert kind == "flip" or name in str(message)


def test_arrays_of_other_shapes_and_numbers_that_are_none(trained, tmp_path):
    with np.load(trained / "refusal.npz") as file:
        arrays = dict(file)
    for name, value in {
        "threshold": np.float64("nan"),
        "reach": np.float64(0),
        "scale": -arrays["scale"],
        "variances": arrays["variances"][:-1],
        "centre": arrays["centre"][:-1],
        "weights": arrays["weights"][:5],
        "components": arrays["components"].astype(str),
        "noise": np.zeros(3),
        "bias": np.array(1j),
    }.items():
        np.savez(tmp_path / "refusal.npz", **(arrays | {name: value}))
        assert "refusal.npz is damaged" in str(told(FeatureDistribution.read, tmp_path / "refusal.npz")), name


def test_a_model_of_another_run(trained, tmp_path):
    other = write_model(tmp_path / "other", size=(24, 24))
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / checksums.FILE).unlink(missing_ok=True)
    shutil.copy(other / "model.keras", folder / "model.keras")
    assert "is of another run: it takes images of (24, 24)" in str(told(answered, folder))


def test_ensembles_that_lead_back_to_themselves(trained, tmp_path):
    both = write_ensemble(tmp_path / "both", [trained, tmp_path / "both"])
    assert "the ensemble is a member of itself" in str(told(keras_engine.load_engine, both))
    a = write_ensemble(tmp_path / "a", [trained, tmp_path / "b"])
    write_ensemble(tmp_path / "b", [trained, a])
    assert "the ensemble is a member of itself" in str(told(keras_engine.load_engine, a))
    twice = write_ensemble(tmp_path / "twice", [trained, trained])
    assert "each once" in str(told(keras_engine.load_engine, twice))
    for member in ("\0", "n" * 300, "/proc/self/mem", ""):
        listed = [{"folder": one, "checksum": ""} for one in (str(trained), member)]
        (twice / "ensemble.json").write_text(json.dumps({"members": listed}))
        assert "ensemble.json" in str(told(keras_engine.load_engine, twice)) or not member
