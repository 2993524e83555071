"""The control that shows the model itself films without their lungs."""

import json

import numpy as np
import pytest

import method_plugins
from chestxray.data.decoded import decode, readable
from chestxray.data.sources.phantom.source import load
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.shortcuts import lungs
from chestxray.evaluation.shortcuts.controls import controls
from chestxray.plugin import SourceOptions
from chestxray.storage import result_files, schema

SIZE = 48
#: Where a sign is planted within the right lung, and the corner of the marker.
SIGN, CORNER = (slice(18, 26), slice(11, 19)), (slice(0, 9), slice(-8, None))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Phantoms with a marker that goes with the class, and a bright spot in the lung that does too."""
    cache = tmp_path_factory.mktemp("phantoms")
    index = load(f"size={SIZE},images=900,classes=clear+consolidation,marker=1", SourceOptions(cache=cache))
    decoded = decode(index, (SIZE, SIZE), "stretch", cache, processes=1)
    index, pixels = readable(index, decoded, 0.0), np.array(decoded.pixels)
    ill = (index.rows["label"] == index.classes[1]).to_numpy()
    pixels[ill, 20:24, 13:17] = 250
    return index, pixels


@pytest.fixture
def segmenter(tmp_path, monkeypatch):
    method_plugins.install(tmp_path / "site", monkeypatch, segmenters="dark")
    monkeypatch.setenv("CHESTXRAY_DISABLE_PLUGINS", "lungs")


def looks_at(place):
    """A model of the sharpest edge at a place, as a letter or a spot has it."""

    def answer(films):
        edges = np.diff(films[(slice(None), *place)].astype(float), axis=2)
        p = 1 / (1 + np.exp(-(np.abs(edges).max(axis=(1, 2)) - 110) / 40))
        return np.stack([1 - p, p], axis=1)

    return answer


def found_on(films, answer):
    index, pixels = films
    tested = (index.rows["split"] == "test").to_numpy()
    test = Predictions.from_probabilities(index.rows[tested], index.classes, answer(pixels[tested]))
    masked = lungs.masked(index, pixels, answer)
    found = controls(index, pixels, test, evaluate(test, replicates=100).to_json(), masked=masked)
    assert schema.conform(json.loads(json.dumps(found)), result_files.FORMS["controls.json"]) == found
    return found, next((item for item in found["controls"] if item["name"] == lungs.NAME), None)


def test_it_fires_for_a_model_that_reads_the_marker(films, segmenter):
    found, item = found_on(films, looks_at(CORNER))
    assert item["fires"], item["says"]
    assert lungs.NAME in found["fires"]
    assert item["share"]["low"] > 0.75 and "method-plugins:dark 2.1" in item["sees"]
    assert item["lungs_only"]["value"] < 0.75, "the lungs alone do not show the marker"
    assert "it hardly needs the lungs. Shown the lungs alone, it reaches" in item["says"]
    assert f"Shown {item['films']} test images with their lungs blanked, the model itself reaches" in item["says"]


def test_it_is_excluded_for_a_model_that_reads_the_lungs(films, segmenter):
    found, item = found_on(films, looks_at(SIGN))
    assert item["state"] == "excluded" and lungs.NAME not in found["fires"]
    assert item["auroc"]["value"] < 0.6 < 0.85 < item["lungs_only"]["value"]
    assert "75% or more is excluded" in item["says"]
    # Its intervals are widened for one figure more than without it.
    assert found["rule"]["figures"] == 5


def test_without_a_segmenter_there_is_no_such_control(films, monkeypatch):
    monkeypatch.setenv("CHESTXRAY_DISABLE_PLUGINS", "lungs")
    found, item = found_on(films, looks_at(SIGN))
    assert item is None and lungs.NAME not in {one["name"] for one in found["left_out"]}
    assert found["rule"]["figures"] == 4


def test_what_is_blanked_is_the_mean_of_the_rest():
    film = np.array([[[10, 20], [30, 200]]], np.uint8)
    hidden = np.array([[[False, False], [False, True]]])
    assert lungs.blanked(film, hidden).tolist() == [[[10, 20], [30, 20]]]
    assert lungs.blanked(film, ~hidden).tolist() == [[[200, 200], [200, 200]]]
    assert film.tolist() == [[[10, 20], [30, 200]]]


def test_films_of_which_no_lungs_are_found_are_counted_and_left_out(films, segmenter):
    index, pixels = films
    some = pixels.copy()
    tested = np.flatnonzero((index.rows["split"] == "test").to_numpy())
    some[tested[:7]] = 0
    _, item = found_on((index, some), looks_at(CORNER))
    _, before = found_on(films, looks_at(CORNER))
    assert item["unknown"] >= 7 and item["films"] + item["unknown"] == before["films"] + before["unknown"]
    assert f"In {item['unknown']} more no lungs were found." in item["says"]
    some[tested] = 0
    some[tested[:9]] = pixels[tested[:9]]
    found, item = found_on((index, some), looks_at(CORNER))
    assert item is None
    assert any(f"of {len(tested)} test films" in one["reason"] for one in found["left_out"])


def test_a_broken_segmenter_and_two_are_told_and_stop_nothing(films, tmp_path, monkeypatch):
    monkeypatch.setenv("CHESTXRAY_DISABLE_PLUGINS", "lungs")
    method_plugins.install(tmp_path / "one", monkeypatch, segmenters="halved")
    found, item = found_on(films, looks_at(CORNER))
    reasons = {one["name"]: one["reason"] for one in found["left_out"]}
    assert item is None and "method-plugins:halved 2.1 is broken: masks must return bool" in reasons[lungs.NAME]
    monkeypatch.undo()
    monkeypatch.setenv("CHESTXRAY_DISABLE_PLUGINS", "lungs")
    method_plugins.install(tmp_path / "two", monkeypatch, segmenters="dark halved")
    found, _ = found_on(films, looks_at(CORNER))
    reasons = {one["name"]: one["reason"] for one in found["left_out"]}
    assert "One segmenter may be installed" in reasons[lungs.NAME] and "method-plugins:dark" in reasons[lungs.NAME]


def test_of_findings_each_has_the_probabilities_of_its_own():
    given = np.array([[0.2, 0.9], [0.4, 0.3]])
    one = lungs.Masked(keys=(("s", "a"), ("s", "b")), without=given, only=given / 2).of_finding(1)
    np.testing.assert_allclose(one.without, [[0.1, 0.9], [0.7, 0.3]])
    np.testing.assert_allclose(one.only, [[0.55, 0.45], [0.85, 0.15]])
    assert lungs.Masked(reason="none").of_finding(1).reason == "none"
