"""The checks that a run makes of its own heat maps."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import method_plugins
from chestxray import registry
from chestxray.errors import InputError
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation import map_checks, panel
from chestxray.explanation.map_checks import judge
from chestxray.explanation.overlay import marked
from chestxray.recipe import Recipe
from chestxray.report import map_checks_wording
from chestxray.runs import heat_maps
from chestxray.runs.run_folder import Run
from made_runs import write_run

GOOD = Figure(0.95, 0.9, 0.98)
CLASSES = ("clear", "consolidation")


def table(films, tmp_path, *, masks=False):
    """The predictions of films that all are answered rightly, and the rows of their index."""
    paths = [f"{i:03d}" for i in range(len(films.pixels))]
    columns = {"path": paths, "label": [CLASSES[i] for i in films.classes], "patient": paths, "split": "test"}
    rows = pd.DataFrame(columns | {"source": "phantom"})
    predictions = Predictions.from_probabilities(rows, CLASSES, np.eye(2)[films.classes])
    if masks:
        rows["lung_mask"] = [_written(one, tmp_path / f"lungs-{i}.png") for i, one in enumerate(films.lungs)]
        rows["mask"] = [_written(mask, tmp_path / f"{name}.png") for name, mask in zip(paths, films.masks, strict=True)]
    return predictions, rows, dict(zip(paths, films.pixels[..., 0], strict=True))


def _written(mask, path):
    if not mask.any():
        return ""
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return str(path)


def judged(network, films, tmp_path, layer="last", method="gradcam", *, auroc=GOOD, masks=False, thorough=False):
    predictions, rows, images = table(films, tmp_path, masks=masks)
    return judge(network, layer, method, predictions, images, rows, auroc, fit="stretch", thorough=thorough, seed=0)


def verdicts(judgement):
    return {one.name: one.verdict for one in judgement.checks}


@pytest.fixture(autouse=True)
def _no_segmenter(monkeypatch):
    """What is installed beside chestxray must not change these tests."""
    names = ",".join(entry.name for entry in registry.entries(registry.SEGMENTERS))
    monkeypatch.setenv(registry.DISABLED, names)


def test_a_trained_network_is_checked_in_every_way_that_the_data_allow(unmarked, tmp_path):
    network, films = unmarked
    before = [weight.copy() for weight in network.get_weights()]
    found = judged(network, films, tmp_path, masks=True)
    said = verdicts(found)
    assert set(said) == {
        "discrimination", "cascading-randomisation", "single-layer-randomisation", "other-label", "stability",
        "pointing-game", "share-inside", "inside-lungs",
    }  # fmt: skip
    assert said["discrimination"] == said["cascading-randomisation"] == said["pointing-game"] == "passes"
    assert found.images == len(films.pixels)
    assert all((a == b).all() for a, b in zip(before, network.get_weights(), strict=True)), "the model is left as it is"
    assert json.loads(json.dumps(found.to_json()))["badge"] == found.badge


def test_the_threshold_of_the_overlap_comes_from_validation(unmarked, tmp_path):
    network, films = unmarked
    predictions, rows, images = table(films, tmp_path, masks=True)
    half = np.arange(len(rows)) < len(rows) // 2
    test, validation = (Predictions(predictions.rows[of].reset_index(drop=True), CLASSES) for of in (half, ~half))
    found = judge(
        network, "last", "gradcam", test, images, rows, GOOD,
        fit="stretch", thorough=False, seed=0, validation=validation,
    )  # fmt: skip
    (iou,) = (one for one in found.checks if one.name == "iou")
    assert iou.figures["validation_images"] == (films.classes[~half] == 1).sum()
    assert iou.figures["images"] == (films.classes[half] == 1).sum()


def test_more_is_removed_where_it_is_asked_for(marked, tmp_path):
    network, films = marked
    few = type(films)(*(getattr(films, name)[:10] for name in ("pixels", "classes", "masks", "markers", "lungs")))
    assert {"deletion", "insertion", "road"} <= set(verdicts(judged(network, few, tmp_path, thorough=True)))


def test_a_network_that_tells_nothing_apart_fails(unmarked, tmp_path):
    network, films = unmarked
    found = judged(network, films, tmp_path, auroc=Figure(0.5, 0.4, 0.6))
    assert (found.badge, verdicts(found)["discrimination"]) == ("fails", "fails")


def test_without_a_layer_there_is_a_reason_and_no_badge(unmarked, tmp_path):
    found = judged(*unmarked, tmp_path, layer=None)
    assert (found.badge, found.checks, found.images) == ("", (), 0)
    assert "needs a layer of feature maps" in found.reason
    assert judged(*unmarked, tmp_path, layer=None, method="saliency").badge


def test_a_method_that_is_not_for_the_architecture_has_a_reason_and_no_badge(unmarked, tmp_path, monkeypatch):
    network, films = unmarked
    found = judged(network, films, tmp_path, method="attention-rollout")
    assert (found.badge, found.checks, found.images) == ("", (), 0)
    assert found.reason.startswith("attention-rollout is for transformers")
    recipe = Recipe(explain="attention-rollout", map_checks="all")
    assert not heat_maps.needs_shuffled(recipe, "last", network)
    assert heat_maps.needs_shuffled(recipe.replace(explain="gradcam"), "last", network)

    def refuse(*_):
        raise InputError("picky is for other architectures.")

    monkeypatch.setattr(map_checks, "maps_of", refuse)
    found = judged(network, films, tmp_path, method="picky")
    assert (found.badge, found.reason) == ("", "The heat maps could not be checked. picky is for other architectures.")


def test_images_cut_to_the_lungs_are_not_held_against_them(unmarked, tmp_path, monkeypatch, caplog):
    """Their masks or the segmenter would give a share that any map reaches."""
    network, films = unmarked
    method_plugins.install(tmp_path / "site", monkeypatch, segmenters="lit")
    predictions, rows, images = table(films, tmp_path, masks=True)
    for own in (rows, rows.drop(columns="lung_mask")):
        with caplog.at_level(logging.INFO):
            found = judge(
                network, "last", "gradcam", predictions, images, own.assign(lung_box=""), GOOD,
                fit="stretch", thorough=False, seed=0,
            )  # fmt: skip
        assert "inside-lungs" not in verdicts(found) and "images are cut to them" in caplog.text
        caplog.clear()


def test_where_a_mask_of_the_lungs_is_missing_the_segmenter_finds_them(unmarked, tmp_path, monkeypatch, caplog):
    _, films = unmarked
    _, rows, _ = table(films, tmp_path, masks=True)
    pixels = films.pixels[..., 0]
    half = np.arange(len(rows)) % 2 == 0
    some, none = (rows.assign(lung_mask=rows["lung_mask"].where(keep, "")) for keep in (half, half & ~half))
    found = map_checks._lungs(some, pixels, "stretch")
    assert found[half].any(axis=(1, 2)).all() and not found[~half].any(), "without a segmenter they are not known"
    assert map_checks._lungs(none, pixels, "stretch") is None
    assert map_checks._lungs(none.assign(lung_mask=np.nan), pixels, "stretch") is None

    method_plugins.install(tmp_path / "site", monkeypatch, segmenters="lit")
    lit = method_plugins.bright_part(pixels)
    found = map_checks._lungs(some, pixels, "stretch")
    assert (found[half] == films.lungs[half]).all() and (found[~half] == lit[~half]).all()
    assert (map_checks._lungs(none, pixels, "stretch") == lit).all()
    assert not caplog.records, "nothing is wrong"

    monkeypatch.setattr(method_plugins, "lit", method_plugins.halved)
    found = map_checks._lungs(some, pixels, "stretch")
    assert (found[half] == films.lungs[half]).all() and not found[~half].any()
    assert f"not checked against the lungs of {(~half).sum()} films: The segmenter plugin" in caplog.text


def test_maps_that_are_not_finite_are_no_badge(unmarked, tmp_path):
    network, films = unmarked
    weights = network.get_weights()
    broken = [weight.copy() for weight in weights]
    broken[-2][:] = np.nan
    try:
        network.set_weights(broken)
        found = judged(network, films, tmp_path)
    finally:
        network.set_weights(weights)
    assert not found.badge
    assert found.reason.startswith("The heat maps could not be checked. ")


def test_the_finding_that_an_image_has_is_explained():
    p = np.array([[0.9, 0.2, 0.1], [0.9, 0.2, 0.3], [0.1, 0.2, 0.3]])
    truth = np.array([[0, 1, 0], [np.nan, 1, 1], [0, 0, 0.0]])
    columns = {"path": list("abc"), "patient": "", "split": "test", "source": "s", "label": ""}
    for i, name in enumerate("xyz"):
        columns |= {f"probability_{name}": p[:, i], f"truth_{name}": truth[:, i], f"predicted_{name}": 0.0}
    explained = map_checks._explained(FindingPredictions(pd.DataFrame(columns), tuple("xyz")))
    assert explained.tolist() == [1, 2, 2]


@pytest.mark.parametrize("badge", ["passes", "fails"])
def test_pictures_of_a_method_that_fails_say_so(unmarked, tmp_path, badge):
    network, films = unmarked
    predictions, _, images = table(films, tmp_path)
    panel.write_panel(network, "last", "", predictions, images, 1, 0, tmp_path / "maps", badge=badge)
    (first, *_) = json.loads((tmp_path / "maps" / "index.json").read_text())["images"]
    corner = np.asarray(Image.open(tmp_path / "maps" / first["file"]))[0, -1]
    assert (corner.tolist() == [215, 25, 28]) == (badge == "fails")


def test_a_wide_picture_has_the_words_and_a_small_one_the_frame():
    for side, words in ((224, True), (48, False)):
        drawn = marked(np.full((side, side, 3), 90, np.uint8))
        assert (drawn[0, :] == [215, 25, 28]).all()
        assert (drawn == 255).all(axis=-1).any() == words
        assert (drawn[side // 2, side // 2] == 90).all()


def test_the_report_shows_what_fails_first(tmp_path):
    folder = write_run(tmp_path / "run")
    assert map_checks_wording.shown(Run(folder)) is None
    checks = [
        {"name": name, "verdict": verdict, "sentence": f"Of {name}.", "figures": {}}
        for name, verdict in (("stability", "passes"), ("road", "fails"), ("deletion", "doubtful"))
    ]
    record = {"method": "gradcam", "badge": "fails", "reason": "", "images": 24, "checks": checks}
    (folder / "heatmaps" / "checks.json").write_text(json.dumps({"methods": [record]}))
    shown = map_checks_wording.shown(Run(folder))
    assert [row[1] for row in shown["rows"]] == ["fails", "doubtful", "passes"]
    assert shown["rows"][0][0] == "Marked pixels removed, by ROAD"
    assert shown["summary"].startswith("The maps fail: ")
