import dataclasses
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from chestxray.errors import ChestXrayError
from chestxray.evaluation.decision.out_of_distribution import FeatureDistribution
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.explanation.inference_graph import OnePass
from chestxray.inference import batch_prediction, keras_engine
from chestxray.inference.ensemble import Ensemble
from chestxray.models.assembly import features_model
from chestxray.runs.run_folder import Run
from run_folders import CLASSES, SIZE, pixels_of, write_ensemble, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("engines")
    return [write_run(root / "a"), write_run(root / "b", seed=5)]


@pytest.fixture(scope="module")
def engine(runs):
    return keras_engine.load_engine(runs[0])


def test_a_protocol_that_needs_nothing_heavy():
    heavy = ["tensorflow", "keras", "pandas", "scipy", "sklearn", "matplotlib"]
    code = "import sys, chestxray.inference.engine, chestxray.inference.answer"
    code += f"; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_is_an_engine(engine, runs):
    assert (engine.name, engine.classes, engine.image_size, engine.fit) == ("a", CLASSES, SIZE, "stretch")
    assert (engine.heat_maps.method, engine.heat_maps.highest, engine.heat_maps.badge) == (
        "gradcam",
        2.0,
        "not checked",
    )
    assert engine.refusal_threshold == FeatureDistribution.read(runs[0] / "refusal.npz").threshold


def test_it_says_what_the_model_says(engine, runs):
    pixels = pixels_of(9, 3)
    given = engine.run(pixels)
    model = Run(runs[0]).model
    wanted, features = features_model(model, "last").predict(pixels[..., np.newaxis].astype(np.float32), verbose=0)
    np.testing.assert_allclose(given.probabilities, wanted, atol=1e-6)
    distribution = FeatureDistribution.read(runs[0] / "refusal.npz")
    np.testing.assert_allclose(given.distances, distribution.distances(features, pixels), rtol=1e-4)
    assert given.maps is None
    assert given.probabilities.dtype == np.float32


def test_maps_explain_the_class_that_was_decided_on(engine, runs):
    pixels = pixels_of(12, 4)
    given = engine.run(pixels, maps=True)
    decided = engine.decision.decided(given.probabilities)
    assert (decided != given.probabilities.argmax(axis=1)).any(), "the threshold must matter for this test"
    _, wanted = OnePass(Run(runs[0]).model, "last")(pixels[..., np.newaxis], decided)
    np.testing.assert_allclose(given.maps, wanted, atol=1e-5 * wanted.max())
    assert given.maps.shape == (12, *SIZE)


def test_no_maps_and_no_refusal_where_the_run_has_none(tmp_path):
    plain = keras_engine.load_engine(write_run(tmp_path / "plain", refuse=False, explained=False))
    assert plain.refusal_threshold is None
    assert plain.run(pixels_of(2)).distances is None
    with pytest.raises(ChestXrayError, match="plain has no heat maps"):
        plain.run(pixels_of(2), maps=True)


def test_many_threads_may_ask_at_once(runs):
    fresh = keras_engine.load_engine(runs[0])
    parts = [pixels_of(3, seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(fresh.run, parts))
    for part, given in zip(parts, together, strict=True):
        np.testing.assert_allclose(given.probabilities, fresh.run(part).probabilities, atol=1e-6)


def test_an_ensemble_is_the_mean_of_its_members(runs, tmp_path):
    members = [keras_engine.load_engine(run) for run in runs]
    decision = dataclasses.replace(members[0].decision, thresholds={"sick": 0.06}, features=None)
    both = keras_engine.load_engine(write_ensemble(tmp_path / "both", runs, decision))
    assert (both.name, both.classes, both.refusal_threshold) == ("both", CLASSES, 1.0)
    assert (both.heat_maps.highest, both.heat_maps.badge) == (1.0, "not checked")
    pixels = pixels_of(20, 8)
    given = both.run(pixels, maps=True)
    single = [member.run(pixels, maps=True) for member in members]
    np.testing.assert_allclose(given.probabilities, (single[0].probabilities + single[1].probabilities) / 2, atol=1e-6)
    ratios = [one.distances / member.refusal_threshold for one, member in zip(single, members, strict=True)]
    np.testing.assert_allclose(given.distances, np.mean(ratios, axis=0))
    decided = decision.decided(given.probabilities)
    agree = np.stack([member.decision.decided(one.probabilities) for one, member in zip(single, members, strict=True)])
    assert (agree == decided).all(axis=0).any() and (agree != decided).any()
    maps = [member.heat_maps.on_scale(member.raw_maps("gradcam", pixels, decided)) for member in members]
    np.testing.assert_allclose(given.maps, np.mean(maps, axis=0), atol=1e-6)
    # The same as when the class is asked for by its number.
    for number in (0, 1):
        asked = keras_engine.maps_of(both, pixels, number)
        np.testing.assert_allclose(given.maps[decided == number], asked[decided == number], atol=1e-6)


def test_an_ensemble_without_validation_takes_the_most_probable(runs, tmp_path):
    both = keras_engine.load_engine(write_ensemble(tmp_path / "both", runs))
    probabilities = both.run(pixels_of(6)).probabilities
    assert (both.decision.decided(probabilities) == probabilities.argmax(axis=1)).all()


@pytest.mark.parametrize("nested", [False, True])
def test_a_member_with_other_weights_is_named(runs, tmp_path, nested):
    first = shutil.copytree(runs[0], tmp_path / "first")
    both = top = write_ensemble(tmp_path / "both", [first, runs[1]])
    if nested:
        top = write_ensemble(tmp_path / "top", [both, write_run(tmp_path / "third", refuse=False)])
    keras_engine.load_engine(top)
    shutil.copy(runs[1] / "model.keras", first / "model.keras")
    with pytest.raises(ChestXrayError, match=r"first is a member of the ensemble .*both, and its"):
        keras_engine.load_engine(top)
    if nested:
        shutil.rmtree(both)
        write_ensemble(both, [first, runs[1]])
        with pytest.raises(ChestXrayError, match=r"both is a member of the ensemble .*top, and its weights"):
            keras_engine.load_engine(top)


def test_members_of_several_sizes_see_the_image_at_theirs(runs, tmp_path):
    large = write_run(tmp_path / "large", size=(32, 24), refuse=False)
    both = keras_engine.load_engine(write_ensemble(tmp_path / "both", [runs[0], large]))
    assert both.image_size == (32, 24)
    flat = np.full((1, 32, 24), 90, dtype=np.uint8)
    wanted = (
        keras_engine.load_engine(runs[0]).run(flat[:, :16, :12]).probabilities
        + keras_engine.load_engine(large).run(flat).probabilities
    ) / 2
    np.testing.assert_allclose(both.run(flat).probabilities, wanted, atol=1e-6)


def test_members_that_cannot_answer_together(engine, runs, tmp_path):
    other = Decision(("a", "b"), None, Calibration(), {}, "")
    with pytest.raises(ChestXrayError, match=r"must have its classes, a, b. Received: a with clear, sick"):
        Ensemble("mixed", [engine], other)
    padded = write_run(tmp_path / "padded", fit="pad", refuse=False)
    with pytest.raises(ChestXrayError, match="a stretch to 16x12, padded pad to 16x12"):
        keras_engine.load_engine(write_ensemble(tmp_path / "both", [runs[0], padded]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "recipe.toml").unlink(), "is not a run"),
        (lambda run: (run / "model.keras").unlink(), "holds predictions and no weights"),
        (lambda run: (run / "decision.json").unlink(), r"has no decision.json"),
        (lambda run: (run / "decision.json").write_text("{"), "decision.json is damaged"),
        (lambda run: (run / "refusal.npz").write_bytes(b"PK"), "refusal.npz is damaged"),
        (lambda run: (run / "heatmaps" / "index.json").write_text("[]"), "index.json is damaged"),
        (lambda run: (run / "ensemble.json").write_text('{"members": 3}'), "ensemble.json is damaged"),
    ],
)
def test_folders_that_are_no_engine(runs, tmp_path, spoil, words):
    spoil(copy := shutil.copytree(runs[0], tmp_path / "copy"))
    with pytest.raises(ChestXrayError, match=words):
        keras_engine.load_engine(copy)


def test_damaged_weights_are_told_when_they_are_needed(runs, tmp_path):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    (copy / "model.keras").write_bytes((runs[0] / "model.keras").read_bytes()[:300])
    with pytest.raises(ChestXrayError, match=r"model.keras cannot be loaded"):
        keras_engine.load_engine(copy).run(pixels_of(1))


def test_fingerprints_tell_runs_and_options_apart(runs, tmp_path):
    both = write_ensemble(tmp_path / "both", runs)
    marks = [keras_engine.fingerprint(run) for run in (*runs, both)] + [keras_engine.fingerprint(runs[0], "0.9")]
    assert len(set(marks)) == 4
    assert marks[0] == keras_engine.fingerprint(runs[0])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("films")
    paths = []
    for n in range(37):
        path = root / f"{n:02d}.jpg"
        Image.fromarray(pixels_of(1, n, (60, 50))[0]).save(path)
        paths.append(str(path))
    for n in (0, 11, 36):
        (root / f"{n:02d}.jpg").write_bytes(b"\xff\xd8\xff no film")
    return paths


@pytest.mark.parametrize("processes", [False, True])
def test_bulk_says_what_is_said_one_by_one(engine, films, processes):
    from pathlib import Path

    from chestxray.data.images.pixels import UnreadableImage
    from chestxray.data.images.reading import read

    found, reasons = [], []
    for batch in batch_prediction.predicted(engine, films, batch_size=10, maps=True, processes=processes):
        reasons += batch.reasons
        found += list(
            zip(batch.pixels, batch.outputs.probabilities, batch.outputs.distances, batch.outputs.maps, strict=True)
        )
    assert [i for i, reason in enumerate(reasons) if reason] == [0, 11, 36]
    given = iter(found)
    for path, reason in zip(films, reasons, strict=True):
        try:
            pixels = read(Path(path), size=SIZE).pixels
        except UnreadableImage as error:
            assert str(error) == reason
            continue
        one = engine.run(pixels[np.newaxis], maps=True)
        seen, probabilities, distance, heat = next(given)
        np.testing.assert_array_equal(seen, pixels)
        np.testing.assert_allclose(probabilities, one.probabilities[0], atol=1e-6)
        np.testing.assert_allclose(distance, one.distances[0], rtol=1e-4)
        np.testing.assert_allclose(heat, one.maps[0], atol=1e-4 * heat.max())
    assert next(given, None) is None


def test_a_batch_of_unreadable_files_alone(engine, films):
    (batch,) = batch_prediction.predicted(engine, [films[0], films[11]])
    assert batch.outputs is None
    assert all(batch.reasons)
    assert batch.pixels.shape == (0, *SIZE)


def test_only_a_few_batches_are_read_ahead(films, monkeypatch):
    """However many files there are, memory holds the same few."""
    read = []
    plain = batch_prediction.read
    monkeypatch.setattr(batch_prediction, "read", lambda path, **options: read.append(path) or plain(path, **options))
    monkeypatch.setattr(batch_prediction, "_processors", lambda: 2)
    batches = batch_prediction.decoded(films * 30, SIZE, "stretch", batch_size=4, processes=False)
    next(batches)
    bound = 4 * (2 + -(-2 * 2 * batch_prediction.CHUNK // 4))
    assert len(read) <= bound < len(films) * 30 / 10
    batches.close()
    assert len(read) <= bound + 4
