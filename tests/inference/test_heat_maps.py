"""The scale and the badge of heat maps, wherever a model is used."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from chestxray.errors import DataError, InputError
from chestxray.explanation import panel
from chestxray.explanation.methods import raw_maps
from chestxray.inference import batch_prediction, keras_engine, overlay_files, run_heat_maps
from chestxray.inference.heat_maps import FAINT, HeatMaps
from chestxray.runs import heat_maps
from chestxray.runs.run_folder import Run
from run_folders import pixels_of, write_ensemble, write_run

RED = [215, 25, 28]
CHECKS = [
    {"name": "stability", "verdict": "passes", "sentence": "It stays.", "figures": {}},
    {"name": "cascading-randomisation", "verdict": "fails", "sentence": "It stays all the same.", "figures": {}},
]


def set_badge(folder, badge, checks=()):
    record = {"method": "gradcam", "badge": badge, "reason": "", "images": 24, "checks": list(checks)}
    (folder / "heatmaps" / "checks.json").write_text(json.dumps({"methods": [record]}))


def set_scale(folder, **changes):
    path = folder / "heatmaps" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", refuse=False)


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def test_words_on_a_map_beside_the_scale():
    known = HeatMaps("gradcam", "logit", 4.0, "", "passes", "")
    map_of = lambda value: np.array([[0.0, value]], np.float32)  # noqa: E731
    assert known.on_scale(map_of(1.0)).tolist() == [[0.0, 0.25]] and known.on_scale(map_of(9.0)).max() == 1
    faint = 4 * FAINT
    assert [known.is_faint(map_of(value)) for value in (0, faint * 0.99, faint * 1.01)] == [True, True, False]
    assert known.words(map_of(0)).startswith("This map is empty")
    assert known.words(map_of(0.1)) == "This map is nearly empty: its highest value is 0.1, and the scale ends at 4."
    assert known.words(map_of(5.0)) == "The highest value of this map is 5, beyond the end of the scale, 4."
    assert known.words(np.full((1, 2), 3.0)) == "This map is 3 everywhere: it shows no place."
    endless = replace(known, highest=0.0)
    assert not endless.on_scale(map_of(5.0)).any() and endless.words(map_of(5.0)).startswith("This map is not drawn")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"highest": -1}, "heat_maps.highest must be a number at least 0"),
        ({"highest": None}, "heat_maps.highest must be a number"),
        ({"badge": "excellent"}, "heat_maps.badge must be one of passes, doubtful, fails, not checked"),
        ({"reasons": [{"title": "x"}]}, "heat_maps.reasons.0"),
    ],
)
def test_what_is_no_description_is_refused(change, words):
    known = HeatMaps("gradcam", "logit", 4.0, "", "passes", "")
    assert HeatMaps.from_json(known.to_json()) == known
    with pytest.raises(ValueError, match=words):
        HeatMaps.from_json(known.to_json() | change)


def test_a_run_states_its_scale_its_badge_and_the_reasons_that_fail_first(copy):
    found = run_heat_maps.of_run(Run(copy))
    assert (found.highest, found.badge, found.reasons) == (2.0, "not checked", ())
    assert found.scale == "Of the maps of 8 test images of the run, none go beyond the end of the scale."
    set_badge(copy, "fails", CHECKS)
    found = keras_engine.load_engine(copy).heat_maps
    assert found.badge == "fails" and "fails the checks of its maps (Weights made random" in found.sentence
    assert [one["verdict"] for one in found.reasons] == ["fails", "passes"]
    assert HeatMaps.from_json(json.loads(json.dumps(found.to_json()))) == found
    panel_scale = {"lowest": 0.0, "highest": 7.0, "beyond": 1, "unit": "logit"}
    set_scale(copy, method="gradcam", scale=panel_scale, images=[])
    assert run_heat_maps.of_run(Run(copy)).highest == 7.0, "that of the report"
    assert run_heat_maps.of_run(Run(copy)).scale.endswith(" run, 1 goes beyond the end of the scale.")
    set_scale(copy, method="occlusion")
    assert run_heat_maps.of_run(Run(copy)).highest == 2.0
    assert run_heat_maps.of_run(Run(copy), "occlusion").highest == 7.0
    assert run_heat_maps.of_run(Run(copy), "saliency") is None


def test_a_run_without_a_scale_shows_no_maps(copy):
    before = keras_engine.fingerprint(copy)
    (copy / "heatmaps" / "index.json").write_text(json.dumps({"layer": "last", "reason": "", "images": []}))
    engine = keras_engine.load_engine(copy)
    assert engine.heat_maps is None and engine.run(pixels_of(1)).maps is None
    with pytest.raises(InputError, match="states no scale for them, which `chestxray evaluate RUN --heatmaps 2`"):
        engine.run(pixels_of(1), maps=True)
    assert keras_engine.fingerprint(copy) != before, "its answers are others"
    set_scale(copy, gradcam={"highest": -2.0, "beyond": 0, "unit": "logit", "images": 1})
    with pytest.raises(DataError, match=r"gradcam.highest must be a number at least 0"):
        keras_engine.load_engine(copy)


def test_maps_keep_their_ratio_and_an_empty_one_stays_empty(run):
    engine, pixels = keras_engine.load_engine(run), pixels_of(12, 3)
    pixels[0] = 0
    given = engine.run(pixels, maps=True)
    decided = np.asarray(engine.decision.decided(given.probabilities))
    expected = raw_maps("gradcam", Run(run).model, "last", pixels[..., np.newaxis], decided)
    np.testing.assert_allclose(given.maps, expected, atol=1e-5 * expected.max())
    peaks = given.maps.max(axis=(1, 2))
    assert len({round(float(one), 4) for one in peaks}) > 3, "none is stretched to 1"


@pytest.mark.parametrize("badge", ["passes", "fails"])
def test_overlays_are_on_the_scale_and_marked_where_the_method_fails(copy, tmp_path, badge):
    set_badge(copy, badge)
    film = tmp_path / "film.png"
    Image.fromarray(pixels_of(1, 5)[0]).save(film)
    drawn = {}
    for highest in (1e-6, 1e6):
        set_scale(copy, gradcam={"highest": highest, "beyond": 0, "unit": "logit", "images": 8})
        engine = keras_engine.load_engine(copy)
        (batch,) = batch_prediction.predicted(engine, [str(film)], maps=True)
        (name,) = overlay_files.overlays_of(tmp_path / f"{highest}", batch, engine, engine.decision)
        drawn[highest] = np.asarray(Image.open(tmp_path / f"{highest}" / name))
        assert ((drawn[highest][0] == RED).all()) == (badge == "fails")
    inside = np.s_[2:-2, 2:-2]
    grey = np.repeat(batch.pixels[0][..., np.newaxis], 3, axis=-1)
    assert (drawn[1e6][inside] == grey[inside]).all(), "far below the scale the film is as it was"
    assert (drawn[1e-6][inside] != grey[inside]).any()


def test_an_ensemble_is_a_mean_of_shares_that_nobody_checked(run, copy, tmp_path):
    set_badge(copy, "passes")
    set_scale(copy, gradcam={"highest": 4.0, "beyond": 0, "unit": "logit", "images": 8})
    both = keras_engine.load_engine(write_ensemble(tmp_path / "both", [run, copy]))
    assert (both.heat_maps.badge, both.heat_maps.highest) == ("not checked", 1.0)
    raw = keras_engine.maps_of(keras_engine.load_engine(run), pixels_of(3), 1)
    shares = (np.clip(raw / 2, 0, 1) + np.clip(raw / 4, 0, 1)) / 2
    np.testing.assert_allclose(keras_engine.maps_of(both, pixels_of(3), 1), shares, atol=1e-5)


def test_a_panel_by_another_method_states_the_scale_of_gradcam_too(copy):
    run = Run(copy)
    images = {f"v{i}.png": one for i, one in enumerate(pixels_of(40))}
    recipe = run.recipe.replace(explain="saliency", heatmaps=1)
    heat_maps.draw(copy, run.model, "last", "", run.predictions, images, recipe)
    index = json.loads((copy / "heatmaps" / "index.json").read_text())
    rows = np.stack([images[item["path"]] for item in index["images"]])
    numbers = np.array([run.predictions.classes.index(item["explained"]) for item in index["images"]])
    expected = raw_maps("gradcam", run.model, "last", rows[..., np.newaxis], numbers).max()
    assert index["gradcam"] == panel.gradcam_scale(run.model, "last", rows, numbers)
    assert Run(copy).map_scale("gradcam")["highest"] == pytest.approx(expected)
    heat_maps.draw(copy, run.model, "last", "", run.predictions, {}, recipe)
    assert not Run(copy).heatmaps["images"] and Run(copy).map_scale("gradcam")["highest"] == pytest.approx(expected)
