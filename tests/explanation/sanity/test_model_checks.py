"""The checks on networks trained on phantoms whose second class has a marker."""

import dataclasses
import weakref
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from scipy.ndimage import sobel
from sklearn.metrics import roc_auc_score

import drawn_findings
from chestxray.data.sources.phantom.drawing import draw
from chestxray.errors import NonFiniteError
from chestxray.evaluation.intervals import Figure, around
from chestxray.evaluation.paired.paired_tests import auroc_test
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation.inference_graph import OnePass
from chestxray.explanation.map_check import badge
from chestxray.explanation.sanity.discrimination import Untaught, discrimination, untaught
from chestxray.explanation.sanity.model_checks import IMAGES, model_checks
from chestxray.explanation.sanity.other_label import another
from chestxray.explanation.sanity.own_maps import OwnMaps
from chestxray.explanation.sanity.randomisation import NETWORKS, chosen_alone, randomisation, stages
from chestxray.models.assembly import build
from chestxray.plugin import ModelPlugin

SIZE = (40, 40)
CHECKS = ["discrimination", "cascading-randomisation", "single-layer-randomisation", "other-label", "shuffled-labels"]
KNOWN = Figure(0.9, 0.8, 0.95)
_graphs = weakref.WeakKeyDictionary()


def three_convolutions(scaled, weights):
    x = scaled
    for number, (filters, strides) in enumerate(((12, 2), (24, 2), (24, 1))):
        x = keras.layers.Conv2D(
            filters, 3, strides=strides, padding="same", activation="relu", name=f"convolution{number}"
        )(x)
    return x


PLUGIN = ModelPlugin(
    build=three_convolutions,
    scale=lambda pixels: keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels),
    image_size=SIZE,
    channels=1,
    cam_layer="convolution2",
)


def gradcam(model, pixels, classes):
    if model not in _graphs:
        _graphs[model] = OnePass(model, "convolution2")
    return _graphs[model](pixels, classes)[1]


def saliency_of_the_probability(model, pixels, classes):
    images = tf.constant(pixels.astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(images)
        score = tf.reduce_sum(tf.gather(model(images, training=False), classes, axis=1, batch_dims=1))
    return np.abs(tape.gradient(score, images)).max(axis=-1)


def edges(model, pixels, classes):
    grey = pixels[..., 0].astype(np.float32)
    return np.hypot(sobel(grey, axis=1), sobel(grey, axis=2))


def centre(model, pixels, classes):
    """One spot in the middle, with a little noise, so that no two maps are the same."""
    places = np.linspace(-2, 2, SIZE[0])
    spot = np.exp(-(places[:, np.newaxis] ** 2) - places**2)
    return spot + np.random.default_rng(int(classes.sum())).uniform(0, 0.02, (len(pixels), *SIZE))


def films(first, count):
    """Pixels and labels; every second film has a consolidation and a marker."""
    labels = np.arange(count) % 2
    drawn = [
        draw(
            seed=1, patient=first + i, image=0, size=48, finding=("clear", "consolidation")[sick], marker=bool(sick)
        ).pixels
        for i, sick in enumerate(labels)
    ]
    return np.stack([np.asarray(Image.fromarray(one).resize(SIZE)) for one in drawn])[..., np.newaxis], labels


def trained(pixels, labels, epochs=12):
    model = build(PLUGIN, 2, SIZE).model
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", jit_compile=False)
    if epochs:
        model.fit(pixels.astype(np.float32), labels, batch_size=16, epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="module")
def made():
    pixels, labels = films(0, 160)
    test, truth = films(1000, 48)
    of = {
        "trained": trained(pixels, labels),
        "shuffled": trained(pixels, np.random.default_rng(0).permutation(labels)),
        "untrained": trained(pixels, labels, epochs=0),
    }
    probabilities = {name: np.asarray(model(test.astype(np.float32))) for name, model in of.items()}
    return SimpleNamespace(**of, pixels=test, truth=truth, probabilities=probabilities)


def auroc(made, name):
    """With the standard error of Hanley and McNeil (1982)."""
    value = roc_auc_score(made.truth, made.probabilities[name][:, 1])
    first, second, half = value / (2 - value), 2 * value**2 / (1 + value), len(made.truth) / 2
    variance = value * (1 - value) + (half - 1) * (first + second - 2 * value**2)
    return around(value, variance**0.5 / half, len(made.truth))


def checks(made, explain, name="trained", **given):
    decided = made.probabilities[name].argmax(axis=1)
    found = model_checks(getattr(made, name), explain, made.pixels, decided, auroc=auroc(made, name), **given)
    return {check.name: check for check in found}


def test_gradcam_of_a_network_that_learnt_passes(made):
    before = [layer.get_weights() for layer in made.trained.layers]
    found = checks(made, gradcam, shuffled=made.shuffled)
    assert list(found) == CHECKS
    verdicts = {name: check.verdict for name, check in found.items()}
    # A single draw of one layer may by chance be like the learnt one.
    assert verdicts.pop("single-layer-randomisation") != "fails"
    assert set(verdicts.values()) == {"passes"}
    for own, layer in zip(before, made.trained.layers, strict=True):
        assert all(map(np.array_equal, own, layer.get_weights()))
    figures = found["cascading-randomisation"].figures
    assert figures["groups"] == 4 and figures["images"] + figures["empty"] == IMAGES
    assert [stage["random"] for stage in figures["stages"]] == [1, 2, 3, 4]
    level, baseline = figures["rank_correlation"], figures["baseline"]["rank_correlation"]
    assert level["value"] < level["high"] <= baseline["high"]
    assert f"{level['value']:.2f} ({level['low']:.2f} to {level['high']:.2f})" in (
        found["cascading-randomisation"].sentence
    )
    assert checks(made, gradcam, shuffled=made.shuffled) == found


@pytest.mark.parametrize("explain", [edges, centre])
def test_a_method_that_ignores_the_model_fails(made, explain):
    found = checks(made, explain, shuffled=made.shuffled)
    assert {name: check.verdict for name, check in found.items()} == {"discrimination": "passes"} | dict.fromkeys(
        CHECKS[1:], "fails"
    )


@pytest.mark.parametrize("name", ["untrained", "shuffled"])
def test_a_network_that_learnt_nothing_fails_although_its_maps_change(made, name):
    found = checks(made, gradcam, name)
    assert found["discrimination"].verdict == "fails" and badge([*found.values()]) == "fails"
    assert found["cascading-randomisation"].verdict != "fails"


def test_maps_that_do_not_say_which_of_two_labels_they_are_of_fail(made):
    # The gradients of the two probabilities are each other's negative, and the sign is lost.
    assert checks(made, saliency_of_the_probability)["other-label"].verdict == "fails"


def test_labels_that_change_nothing_are_found(made):
    assert checks(made, gradcam, shuffled=made.trained)["shuffled-labels"].verdict == "fails"


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_the_model_is_as_it_was_when_a_method_stops_in_between(made, stop):
    before = [layer.get_weights() for layer in made.trained.layers]
    calls = []

    def stops(model, pixels, classes):
        calls.append(model)
        if len(calls) == 4:
            raise stop
        return edges(model, pixels, classes)

    with pytest.raises(stop):
        checks(made, stops)
    assert calls[0] is made.trained and calls[1] is calls[3] is not made.trained
    for own, layer in zip(before, made.trained.layers, strict=True):
        assert all(map(np.array_equal, own, layer.get_weights()))


def test_a_method_is_called_so_often_as_the_page_says(made):
    images = []

    def counted(model, pixels, classes):
        images.append(len(pixels))
        return edges(model, pixels, classes)

    checks(made, counted, images=10, shuffled=made.shuffled)
    assert images == [10] * (1 + len(stages(4)) + NETWORKS - 1 + len(chosen_alone(4)) + 2)
    assert 1 + len(stages(53)) + NETWORKS - 1 + len(chosen_alone(53)) + 2 == 20


def test_random_weights_that_overflow_leave_doubt(made):
    def overflows(model, pixels, classes):
        if model is not made.trained:
            raise NonFiniteError("A heat map cannot be drawn.")
        return edges(model, pixels, classes)

    own = OwnMaps.of(made.trained, overflows, made.pixels, made.truth)
    found = randomisation(made.trained, overflows, own)
    assert [check.verdict for check in found] == ["doubtful"] * 2
    assert "not finite" in found[0].sentence


def test_a_model_of_one_output_or_without_weights_has_no_such_check(made, tiny):
    one = build(tiny, 1, (16, 16), task="findings").model
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 1)).astype(np.uint8)
    found = model_checks(one, edges, pixels, np.zeros(12, int), auroc=KNOWN)
    assert [check.name for check in found] == CHECKS[:3]
    plain = dataclasses.replace(
        tiny, build=lambda scaled, weights: scaled, head=lambda x, n: keras.layers.GlobalAveragePooling2D()(x)
    )
    fixed = build(plain, 3, (16, 16)).model
    own = OwnMaps.of(fixed, edges, pixels, np.zeros(12, int))
    assert "no layer with weights" in randomisation(fixed, edges, own)[0].sentence


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Figure(0.7, 0.55, 0.8), "passes"),
        (Figure(0.7, 0.45, 0.9), "fails"),
        (Figure(0.3, 0.2, 0.4), "fails"),
        (Figure(0.7, None, None), "doubtful"),
        (Figure(None, None, None), "doubtful"),
    ],
)
def test_a_model_must_tell_classes_apart(figure, verdict):
    check = discrimination(figure)
    assert check.verdict == verdict and check.record()["figures"] == figure.to_json() | {"baseline": 0.5}


@pytest.mark.parametrize(
    ("own", "difference", "verdict"),
    [
        (Figure(0.9, 0.8, 0.95), Figure(0.3, 0.2, 0.4), "passes"),
        (Figure(0.6, 0.55, 0.65), Figure(0.05, -0.02, 0.12), "doubtful"),
        (Figure(0.6, 0.45, 0.65), Figure(0.3, 0.2, 0.4), "fails"),
        (Figure(0.6, 0.55, 0.65), Figure(0.1, None, None), "doubtful"),
    ],
)
def test_a_model_must_do_better_than_one_of_shuffled_labels(own, difference, verdict):
    check = discrimination(own, Untaught(Figure(0.6, 0.5, 0.7), difference, "DeLong"))
    assert check.verdict == verdict
    assert "trained as this one was but on shuffled labels has 0.60 (0.50 to 0.70)" in check.sentence
    assert check.figures["difference"] == difference.to_json()


@pytest.mark.parametrize("better", [True, False])
def test_the_two_are_paired_by_patient(better):
    generator = np.random.default_rng(0)
    sick = np.arange(80) % 2
    rows = pd.DataFrame({
        "path": [f"{i}" for i in range(80)], "label": [("clear", "sick")[i] for i in sick], "split": "test",
        "patient": [f"p{i // 4}" for i in range(80)], "source": "s",
    })  # fmt: skip
    noise = generator.normal(size=80)
    scores = [1 / (1 + np.exp(-(noise + skill * sick))) for skill in (2.0, 0.5)]
    own, other = scores if better else scores[::-1]
    table = Predictions.from_probabilities(rows, ("clear", "sick"), np.stack([1 - own, own], axis=1))
    found = untaught(table, np.stack([1 - other, other], axis=1))
    expected = auroc_test(sick == 1, own, other, table.clusters)
    assert found.test == expected.name == "DeLong clustered by patient (Obuchowski 1997)"
    for name in ("value", "low", "high"):
        assert getattr(found.difference, name) == pytest.approx(getattr(expected.figure(), name))
    assert found.auroc.value == pytest.approx(roc_auc_score(sick, other))


def test_findings_that_cannot_be_scored_have_no_such_baseline():
    few = drawn_findings.example(rows=8)
    assert untaught(few, few.probabilities) is None
    assert untaught(drawn_findings.example(), drawn_findings.example().probabilities[::-1]).difference.value > 0


def test_another_label_is_never_the_same_and_may_be_any():
    classes = np.arange(400) % 4
    others = another(classes, 4, 0)
    assert (others != classes).all() and {*others} == {0, 1, 2, 3}
    assert {*others[classes == 0]} == {1, 2, 3}
