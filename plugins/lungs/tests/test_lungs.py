import os
import random
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import chestxray_lungs
import keras
import numpy as np
import pytest
from chestxray_lungs import augmentation, films, network, segmentation, train
from PIL import Image

from chestxray import registry, workflow
from chestxray.data import lung_boxes
from chestxray.data.decoded import decode
from chestxray.data.images.pixels import corners
from chestxray.data.images.reading import read
from chestxray.data.sources.phantom.drawing import draw
from chestxray.data.sources.phantom.source import load
from chestxray.errors import InputError
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.shortcuts import lungs
from chestxray.evaluation.shortcuts.controls import controls
from chestxray.inference.batch_prediction import predicted
from chestxray.inference.keras_engine import load_engine
from chestxray.plugin import SourceOptions
from chestxray.recipe import Recipe
from chestxray.testing import check_method_plugin


@pytest.fixture(scope="module")
def drawn():
    """Phantoms that the network was not trained on."""
    return films.phantoms(range(5000, 5024), seed=9)


def test_it_passes_the_suite_of_segmenters():
    assert {result.outcome for result in check_method_plugin(chestxray_lungs.plugin) if result.name != "name"} == {
        "passed"
    }


def test_it_is_listed_without_keras():
    (entry,) = [point for point in entry_points(group=registry.SEGMENTERS) if point.name == "lungs"]
    code = f"import sys, {entry.module}; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'jax')))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_weights_are_small_and_those_of_the_network():
    assert segmentation.WEIGHTS.stat().st_size < 2e6
    model, facts = network.load(segmentation.WEIGHTS)
    assert model.count_params() == 467_561
    assert set(facts) == {"least_share", "greatest_share", "least_certainty"}


def test_lungs_of_phantoms_are_found_with_their_findings(drawn):
    found = chestxray_lungs.masks(drawn.pixels)
    dice = train.dice(found, drawn.lungs)
    assert dice.mean() > 0.95 and dice.min() > 0.9


def test_any_size_and_number_of_films_gives_the_same_lungs(drawn):
    pixels = drawn.pixels[:3]
    found = chestxray_lungs.masks(pixels)
    assert chestxray_lungs.masks(pixels[:0]).shape == (0, *pixels.shape[1:])
    np.testing.assert_array_equal(chestxray_lungs.masks(pixels[1:2]), found[1:2])
    larger = chestxray_lungs.masks(pixels.repeat(2, axis=1).repeat(3, axis=2))
    assert train.dice(larger[:, ::2, ::3], found).min() > 0.98
    many = np.concatenate([pixels] * (segmentation.BATCH // 3 + 1))
    np.testing.assert_array_equal(chestxray_lungs.masks(many)[-3:], found)


def test_the_kept_exposure_does_not_matter(drawn):
    found = chestxray_lungs.masks(drawn.pixels)
    darker = (drawn.pixels * 0.4 + 20).astype(np.uint8)
    assert train.dice(chestxray_lungs.masks(darker), found).min() > 0.97


def test_consolidated_lungs_are_lungs(drawn):
    rng = np.random.default_rng(3)
    posed = [augmentation.posed(film, lung, rng) for film, lung in zip(drawn.pixels, drawn.lungs, strict=True)]
    ill = np.stack([augmentation.opacified(film, lung, rng) for film, lung in posed]).clip(0, 255).astype(np.uint8)
    found = chestxray_lungs.masks(ill)
    known = found.any(axis=(1, 2))
    assert known.mean() > 0.7
    assert train.dice(found, np.stack([lung for _, lung in posed]))[known].mean() > 0.9


def without_lungs():
    rng = np.random.default_rng(0)
    film = draw(seed=9, patient=5000, image=0, finding="clear", size=128).pixels
    rows, columns = np.mgrid[:128, :128] / 127
    noise = rng.standard_normal((128, 128))
    spectrum = np.fft.fft2(noise) / np.maximum(np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)), 1 / 128)
    photograph = np.real(np.fft.ifft2(spectrum))
    chest = np.exp(-(((rows - 0.5) / 0.4) ** 2 + ((columns - 0.5) / 0.3) ** 2))
    return {
        "black": np.zeros((128, 128)),
        "white": np.full((128, 128), 255),
        "noise": 127 + 40 * noise,
        "a photograph": 127 + 60 * photograph / photograph.std(),
        "a ramp": 255 * rows,
        "a lateral film": 220 * chest - 120 * np.exp(-(((rows - 0.45) / 0.2) ** 2 + ((columns - 0.5) / 0.12) ** 2)),
        "a negative": 255 - film[:, :],
        "a film on its side": np.rot90(film),
        "half a film": film[:, : film.shape[1] // 2],
    }


@pytest.mark.parametrize("name", without_lungs())
def test_where_no_lungs_are_plausible_they_are_unknown(name):
    picture = without_lungs()[name].clip(0, 255).astype(np.uint8)
    assert not chestxray_lungs.masks(picture[None]).any()


def test_a_file_of_weights_is_loaded_as_it_was_written_and_changes_no_seed(tmp_path):
    keras.utils.set_random_seed(1)
    model = network.build()
    network.save(model, tmp_path / "w.safetensors", {"least_share": "0.1"})
    random.seed(4)
    expected = random.Random(4).random()
    again, facts = network.load(tmp_path / "w.safetensors")
    assert random.random() == expected and facts == {"least_share": "0.1"}
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-3)


def test_patients_are_split_by_their_name_alone():
    names = [f"MCUCXR_{n:04d}_{n % 2}" for n in range(700)]
    parts = [films.part_of(name) for name in names]
    assert parts == [films.part_of(name) for name in names]
    assert 0.6 < parts.count("train") / 700 < 0.82 and {*parts} == set(films.PARTS)


def test_the_same_seed_gives_the_same_changed_films(drawn):
    one, other = (augmentation.batch(drawn, drawn, 8, np.random.default_rng(2)) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        assert a.shape == (8, network.SIDE, network.SIDE)
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[0], augmentation.batch(drawn, drawn, 8, np.random.default_rng(3))[0])


def test_it_can_be_trained_again(drawn, tmp_path, monkeypatch, capsys):
    """A step of it, on phantoms in the place of films of patients."""
    names = [f"p{n}_{n % 2}" for n in range(60)]
    chosen = [name for part in films.PARTS for name in [one for one in names if films.part_of(one) == part][:6]]
    for folder, pictures in (("images", drawn.pixels), ("masks", drawn.lungs * np.uint8(255))):
        (tmp_path / folder).mkdir()
        for name, picture in zip(chosen, pictures[:18], strict=True):
            Image.fromarray(picture).save(tmp_path / folder / f"{name}.png")
    for name, few in (("DRAWN", 8), ("CHANGED", 6), ("BATCH", 2)):
        monkeypatch.setattr(train, name, few)
    train.main(["--montgomery", str(tmp_path), "--output", str(tmp_path / "w.safetensors"), "--steps", "1"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "6 patients for train, 6 patients for validation, 6 patients for test"
    assert said[-2].startswith("the mean mask of training: Dice 0.") and said[-2].endswith("6 patients")
    _, facts = network.load(tmp_path / "w.safetensors")
    assert 0 < float(facts["least_share"]) <= float(facts["greatest_share"]) < 1


def test_what_cannot_be_trained_on_is_told(tmp_path, capsys):
    with pytest.raises(InputError, match=r"must be a folder with images/\*\.png"):
        films.montgomery(tmp_path)
    with pytest.raises(SystemExit):
        train.main(["--montgomery", str(tmp_path), "--output", str(tmp_path / "w")])
    assert "--montgomery must be a folder" in capsys.readouterr().err


def test_the_control_fires_for_a_model_of_a_marker_outside_the_lungs(tmp_path):
    index = load("size=64,images=700,classes=clear+consolidation,marker=1", SourceOptions(cache=tmp_path))
    pixels = decode(index, (64, 64), "stretch", tmp_path, processes=1).pixels

    def answer(shown):
        edges = np.abs(np.diff(shown[:, :10, -10:].astype(float), axis=2)).max(axis=(1, 2))
        p = 1 / (1 + np.exp(-(edges - 110) / 40))
        return np.stack([1 - p, p], axis=1)

    tested = (index.rows["split"] == "test").to_numpy()
    test = Predictions.from_probabilities(index.rows[tested], index.classes, answer(pixels[tested]))
    metrics = evaluate(test, replicates=100).to_json()
    found = controls(index, pixels, test, metrics, masked=lungs.masked(index, pixels, answer))
    (item,) = [one for one in found["controls"] if one["name"] == lungs.NAME]
    assert item["fires"], item["says"]
    assert item["lungs_only"]["value"] < item["auroc"]["value"] - 0.2
    assert item["unknown"] < item["films"] / 20


@pytest.mark.parametrize(
    "data", ["phantom:images=90,size=64,classes=clear+consolidation", "phantom:findings,patients=120,size=64"]
)
def test_a_run_shows_its_model_films_without_their_lungs(data, tmp_path):
    recipe = Recipe(
        model="shallow_cnn", data=(data,), weights="none", image_size=(32, 32), epochs=1, replicates=100, heatmaps=0
    )
    run = workflow.run(recipe, output=tmp_path / "run", cache=tmp_path / "cache")
    runs = list(run.findings.values()) or [run]
    for one in runs:
        (item,) = [item for item in one.controls["controls"] if item["name"] == lungs.NAME]
        assert item["films"] > 4
        assert "test images with their lungs blanked" in item["says"]


def test_a_run_is_cut_to_the_lungs_of_its_films(tmp_path):
    recipe = Recipe(
        model="shallow_cnn", data=("phantom:images=90,size=96,classes=clear+consolidation",), weights="none",
        image_size=(32, 32), epochs=1, replicates=100, heatmaps=0, crop="lungs",
    )  # fmt: skip
    run = workflow.run(recipe, output=tmp_path / "run", cache=tmp_path / "cache")
    rows = run.index.rows
    cut = rows[rows[lung_boxes.COLUMN] != ""]
    assert len(cut) > 0.9 * len(rows)
    shares = []
    for path, box in zip(cut["lung_mask"][:30], lung_boxes.of_rows(cut)[:30], strict=True):
        drawn = read(Path(path)).pixels > 0
        left, top, right, bottom = corners(box, drawn.shape[1], drawn.shape[0])
        assert drawn[top:bottom, left:right].sum() > 0.99 * drawn.sum()
        shares.append((bottom - top) * (right - left) / drawn.size)
    assert 0.4 < min(shares) < 0.95
    (blanked,) = [item for item in run.controls["controls"] if item["name"] == lungs.NAME]
    assert blanked["films"] > 4, "lungs that are cut out are found in the whole film"

    test = run.predictions.of("test")
    engine = load_engine(run.folder)
    (batch,) = predicted(engine, list(test.rows["path"][:16]))
    np.testing.assert_allclose(batch.outputs.probabilities, test.probabilities[:16], atol=1e-5)
    assert str(engine.segmenter).startswith("chestxray-lungs:lungs ") and len(engine.segmenter.weights) == 32


@pytest.mark.real_data
@pytest.mark.skipif("CHESTXRAY_REAL_DATA" not in os.environ, reason="needs CHESTXRAY_REAL_DATA")
def test_the_lungs_of_montgomery_patients_that_were_held_out():
    test = films.montgomery(Path(os.environ["CHESTXRAY_REAL_DATA"]) / "montgomery").of("test")
    assert len(test) == 32
    found = chestxray_lungs.masks(test.pixels)
    assert found.any(axis=(1, 2)).all()
    dice = train.dice(found, test.lungs)
    assert dice.mean() > 0.95 and dice.min() > 0.85
