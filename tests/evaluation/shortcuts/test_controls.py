"""Controls: what they see, when they fire, and what they cannot tell."""

import itertools
import json
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chestxray.data.decoded import decode, readable
from chestxray.data.index import Index
from chestxray.data.sources.phantom.source import load
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.shortcuts import inputs
from chestxray.evaluation.shortcuts.controls import controls
from chestxray.evaluation.shortcuts.scores import FOLDS, areas, average, deal, share
from chestxray.plugin import SourceOptions
from chestxray.storage import result_files, schema

SEEDS = range(2)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """A function that gives the index and the pixels of a set, drawn once for all tests."""
    cache = tmp_path_factory.mktemp("phantoms")

    def drawn(seed, more="", images=180):
        options = f"size=48,images={images},classes=clear+consolidation{more}"
        index = load(options, SourceOptions(cache=cache, seed=seed))
        decoded = decode(index, (48, 48), "stretch", cache, processes=1)
        return readable(index, decoded, 0.0), decoded.pixels

    return drawn


def predicted(index, skill=2.3, seed=0):
    """Test predictions of a model with some skill."""
    rows = index.rows[index.rows["split"] == "test"]
    truth = rows["label"].map(index.classes.index).to_numpy()
    logits = np.random.default_rng(seed).normal(size=(len(rows), len(index.classes)))
    logits[np.arange(len(rows)), truth] += skill
    return Predictions.from_probabilities(
        rows, index.classes, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    )


def found_on(index, pixels, skill=2.3, **more):
    """``controls.json`` beside a model with some skill, which can be read again."""
    test = predicted(index, skill)
    found = controls(index, pixels, test, evaluate(test, replicates=100).to_json(), **more)
    assert schema.conform(json.loads(json.dumps(found)), result_files.FORMS["controls.json"]) == found
    return found


def by_name(found):
    return {item["name"]: item for item in found["controls"]}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_marker_fires_the_border_and_nothing_fires_without(phantoms, seed):
    marked = found_on(*phantoms(seed, ",marker=1"), seed=seed)
    assert "border" in marked["fires"]
    assert by_name(marked)["border"]["learnt"]["auroc"]["value"] > 0.75
    assert "file_facts" not in marked["fires"]
    assert marked["finding"] in ("shortcut", "part")
    clean = found_on(*phantoms(seed), seed=seed)
    assert clean["fires"] == []
    assert clean["left_out"][0]["name"] == "predict_the_source"


def test_a_small_test_is_not_taken_for_the_absence_of_a_shortcut(phantoms):
    index, pixels = phantoms(0)
    found = found_on(index, pixels)
    border = by_name(found)["border"]
    assert border["state"] == "undecided"
    assert border["up_to"] > 0.6
    assert f"{border['up_to']:.2f} is not excluded" in border["says"]
    assert "No control explains the score" not in found["verdict"]
    assert "Too few images to tell whether a control explains the score" in found["verdict"]
    assert found["finding"] == "undecided"


def test_a_share_near_that_of_the_model_is_undecided_on_few_images_and_fires_on_many():
    def drawn(patients):
        rng = np.random.default_rng(1)
        truth = np.arange(patients) % 2
        score = truth + rng.normal(0, 1.0, patients)
        alike = score + rng.normal(0, 0.35, patients)
        flat = np.zeros(patients, dtype=int)
        return [average(areas(np.stack([-s, s], axis=1), truth, flat, np.arange(patients))) for s in (alike, score)]

    few, many = share(*drawn(40)), share(*drawn(2000))
    assert few.value > 0.85 and many.value > 0.85
    assert few.low < 0.75 < many.low, "the thumbnail of the report of 40 films"
    assert few.high is None or few.high > many.high


def test_a_perfect_score_of_few_is_no_sure_share():
    truth = np.arange(12) % 2
    scores = np.stack([-truth, truth], axis=1).astype(float)
    area = average(areas(scores, truth, np.zeros(12, dtype=int), np.arange(12)))
    found = share(area, area)
    assert found.value == 1.0
    assert found.low < 0.75, "six patients of each class"
    assert share(area, average(areas(-scores, truth, np.zeros(12, dtype=int), np.arange(12)))).value is None


def test_the_paired_interval_of_a_share_covers():
    """Of 200 tests, at most a few miss the share that a huge test shows."""

    def of(n, rng):
        truth = np.arange(n) % 2
        model = truth * 1.5 + rng.normal(size=n)
        control = 0.8 * model + rng.normal(size=n)
        flat = np.zeros(n, dtype=int)
        return share(*(average(areas(np.stack([-s, s], 1), truth, flat, np.arange(n))) for s in (control, model)))

    true = of(200_000, np.random.default_rng(0)).value
    drawn = [of(80, np.random.default_rng([1, i])) for i in range(200)]
    missed = sum(found.low > true or (found.high is not None and found.high < true) for found in drawn)
    assert missed <= 20, "5% of 200 are 10; more than 20 have a probability of 0.1%"
    assert missed > 0 or np.mean([found.high - found.low for found in drawn if found.high]) < 0.6


def test_file_facts_fire_where_formats_go_with_classes(phantoms):
    index, pixels = phantoms(0)
    rows = index.rows.assign(mode=np.where(index.rows["label"] == "clear", "L", "RGB"))
    found = found_on(index.replace(rows), pixels)
    facts = by_name(found)["file_facts"]
    assert facts["fires"] and facts["auroc"]["value"] > 0.99
    assert facts["says"].endswith("this score cannot be taken as evidence that disease is recognised.")
    assert "This score cannot be taken as evidence that disease is recognised" in found["verdict"]
    assert "as much could be learnt from file facts alone" in found["verdict"]
    assert "whether or not this model did" in found["verdict"]
    assert found["finding"] == "shortcut"
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("confounded", [True, False])
def test_the_source_fires_only_where_it_goes_with_the_class(phantoms, confounded):
    index, pixels = phantoms(1)
    patients = pd.factorize(index.rows["patient"])[0]
    other = index.rows["label"] == "clear" if confounded else patients % 2 == 0
    rows = index.rows.assign(source=np.where(other, "here", "there"))
    bright = np.clip(pixels.astype(int) + 60 * np.asarray(other)[:, None, None], 0, 255).astype(np.uint8)
    found = by_name(found_on(index.replace(rows), bright))
    assert found["source"]["fires"] == confounded
    assert found["predict_the_source"]["learnt"]["auroc"]["value"] > 0.9
    assert found["predict_the_source"]["fires"] == confounded
    assert ("and the source predicts the class" in found["predict_the_source"]["says"]) == confounded


def test_a_test_of_another_hospital_with_more_disease_is_no_shortcut(phantoms):
    """The training's films are darker and mostly clear, the test's brighter and mostly ill: nothing to learn."""
    index, pixels = phantoms(2, images=500)
    rows = index.rows
    rng = np.random.default_rng(0)
    ill = (rows["label"] == "consolidation").to_numpy()
    test = (rows["split"] == "test").to_numpy()
    kept = np.where(ill ^ test, rng.random(len(rows)) < 0.25, True)
    index = index.replace(rows[kept])
    pixels = np.clip(pixels.astype(int) + 80 * test[:, None, None], 0, 255).astype(np.uint8)[kept]
    assert found_on(index, pixels)["fires"] == []


def test_controls_go_by_counts_and_not_by_the_clock(phantoms, monkeypatch):
    index, pixels = phantoms(0)
    plain = found_on(index, pixels, seed=3)
    beats = itertools.count()
    for name in ("perf_counter", "monotonic", "time", "process_time"):
        monkeypatch.setattr(time, name, lambda: 1000.0 * next(beats))
    slow = found_on(index, pixels, seed=3)
    assert slow.pop("seconds") != plain.pop("seconds"), "the clock was another"
    assert slow == plain
    assert "budget" not in plain


def test_rows_are_at_most_a_fixed_number_with_patients_whole(phantoms, monkeypatch):
    monkeypatch.setattr("chestxray.evaluation.shortcuts.controls.MOST", {"train": 60, "validation": 20, "test": 30})
    index, pixels = phantoms(0, images=300)
    found = found_on(index, pixels)
    drawn = found["rows"]
    assert 60 <= drawn["train"] < 80 and 30 <= drawn["test"] < 50
    assert drawn["all"] == drawn["train"] + drawn["validation"] + drawn["test"]
    assert set(by_name(found)) == {"border", "file_facts", "blanked_centre", "thumbnail"}


def test_folds_have_the_controls_of_their_own_trainings(phantoms):
    index, pixels = phantoms(0, ",marker=1")
    clusters = pd.factorize(index.clusters())[0]
    splits = [np.where(clusters % 3 == k, "test", np.where(clusters % 3 == (k + 1) % 3, "validation", "train"))
              for k in range(3)]  # fmt: skip
    pooled = index.replace(index.rows.assign(split="test"))
    found = found_on(pooled, pixels, splits=splits)
    assert found["rows"] == dict.fromkeys(("all", "train", "validation", "test"), 180)
    assert "border" in found["fires"]
    # A control of one fold never sees the rows that it is tested on.
    assert by_name(found)["border"]["auroc"]["value"] < 0.999


def test_folds_of_cross_fitting_keep_groups_and_classes_together():
    truth = np.repeat([0, 1, 2], [200, 60, 4])
    groups = np.arange(264) // 2
    fold = deal(truth, groups, seed=0)
    assert all(len(set(fold[groups == g])) == 1 for g in np.unique(groups))
    counts = np.array([np.bincount(fold[truth == k], minlength=FOLDS) for k in range(3)])
    assert (np.ptp(counts, axis=1) <= 2).all(), "each class is dealt out evenly, a pair at a time"
    assert not np.array_equal(fold, deal(truth, groups, seed=1))


def test_no_control_sees_what_it_must_not():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 100, 90), dtype=np.uint8)
    pixels[1] = pixels[0]
    pixels[1, 20:80, 20:70] = 255
    seen = inputs.grids(pd.DataFrame(index=range(2)), pixels, np.arange(2), "stretch", masked=False)
    edge, blank, whole = (view(seen) for view in (inputs.border, inputs.blanked, inputs.thumbnail))
    np.testing.assert_array_equal(edge[0], edge[1])
    np.testing.assert_array_equal(blank[0], blank[1])
    assert not np.array_equal(whole[0], whole[1])
    assert whole.shape == (2, 64)


def test_lungs_of_a_mask_are_blanked_with_the_fit_of_the_pixels(tmp_path):
    # The mask is twice as wide as high; padded, its right half lies in the middle band alone.
    mask = np.zeros((40, 80), np.uint8)
    mask[:, 40:] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    rows = pd.DataFrame({"lung_mask": [str(tmp_path / "mask.png")]})
    pixels = np.full((1, 64, 64), 7, np.uint8)
    padded, stretched = (
        inputs.grids(rows, pixels, np.arange(1), fit, masked=True).lungs[0] for fit in ("pad", "stretch")
    )
    assert stretched[:, 16:].all() and not stretched[:, :14].any()
    assert padded[8:24, 16:].all() and not padded[:6].any() and not padded[26:].any()


def test_masks_of_some_rows_only_are_not_used():
    rows = pd.DataFrame({"lung_mask": ["/x.png", ""]})
    assert not inputs.has_masks(rows)
    assert inputs.has_masks(rows.head(1))


def test_a_spoilt_mask_is_said_and_the_centre_blanked_instead(phantoms, tmp_path):
    index, pixels = phantoms(0)
    assert "area of the lung mask" in by_name(found_on(index, pixels))["blanked_centre"]["sees"]
    spoilt = index.replace(index.rows.assign(lung_mask=str(tmp_path / "missing.png")))
    found = found_on(spoilt, pixels)
    assert "the centre" in by_name(found)["blanked_centre"]["sees"]
    assert "lung masks" in [item["name"] for item in found["left_out"]]


def test_index_without_decoded_facts_is_taken(phantoms):
    index, pixels = phantoms(0)
    bare = Index.from_records(index.rows[["path", "label", "patient", "split"]].to_dict("records"), name="bare")
    found = by_name(found_on(bare, pixels))
    assert found["file_facts"]["auroc"]["value"] is not None


def test_a_class_that_is_hardly_there_is_no_mistake(phantoms):
    index, pixels = phantoms(0)
    rows = index.rows
    ill = np.flatnonzero(rows["label"] == "consolidation")
    kept = np.sort(np.concatenate([np.flatnonzero(rows["label"] == "clear"), ill[:2]]))
    few = index.replace(rows.iloc[kept])
    found = found_on(few, pixels[kept])
    assert found["fires"] == []
    json.dumps(found, allow_nan=False)
