import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.ndimage import zoom

from chestxray.errors import PluginError
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.decision.out_of_distribution import learn
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.explanation.closed_form_gradient import HeadGradient, NoClosedForm
from chestxray.explanation.gradcam import enlarge, enlargement, with_places
from chestxray.explanation.inference_graph import Graph, OnePass
from chestxray.explanation.library_maps import gradcam
from chestxray.models.assembly import build, features_model, set_calibration
from heads import KNOWN, UNKNOWN, dense, flattened, pooled, vectors

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 1)).astype(np.float32)
CLASSES = np.array([0, 1, 2, 0, 1])


def made(tiny, head):
    """A model whose normalisation has moved from where it started."""
    model = build(dataclasses.replace(tiny, head=head), 3, (16, 24)).model
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            generator = np.random.default_rng(1)
            layer.set_weights([generator.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    return model


def raw(model, images, classes):
    """The maps of tf-keras-vis in their own unit, at the size of the images, which is that of the layer."""
    maps = gradcam(model, "last", images, classes, finished=False)
    assert maps.shape == images.shape[:3]
    return maps


def near(given, expected, share=1e-4):
    np.testing.assert_allclose(given, expected, atol=share * max(expected.max(), 1e-9))


@pytest.mark.parametrize("head", [*KNOWN, *UNKNOWN])
def test_maps_are_those_of_tf_keras_vis(tiny, head):
    model = made(tiny, head)
    graph = Graph(model, "last")
    assert bool(graph.reason) == (head in UNKNOWN)
    given = graph.compute(tf.constant(PIXELS), tf.constant(CLASSES, tf.int32))
    expected = raw(model, PIXELS, CLASSES)
    assert expected.max() > 0
    near(given["map"], expected)
    # Scaled to their own range, as the library does by default, they are its maps too.
    low, high = (end(given["map"], axis=(1, 2), keepdims=True) for end in (np.min, np.max))
    scaled = (given["map"] - low) / (high - low + 1e-7)
    np.testing.assert_allclose(scaled, gradcam(model, "last", PIXELS, CLASSES), atol=1e-4)
    np.testing.assert_allclose(given["probabilities"], model(PIXELS, training=False), atol=1e-6)
    near(graph.evidence(tf.constant(PIXELS), tf.constant(CLASSES, tf.int32)), expected)


@pytest.mark.parametrize(("head", "said"), UNKNOWN.items())
def test_what_is_not_known_is_named(tiny, head, said):
    model = made(tiny, head)
    with pytest.raises(NoClosedForm, match=said):
        HeadGradient.between(model.get_layer("last"), model.get_layer("calibration").input)
    assert said in Graph(model, "last").reason


def test_one_pass_is_the_same_in_batches_and_explains_the_most_probable_class(tiny):
    model = made(tiny, flattened)
    explain = OnePass(model, "last")
    probabilities, maps = explain(PIXELS.astype(np.uint8), batch_size=2)
    assert probabilities.shape == (5, 3)
    near(maps, raw(model, PIXELS, probabilities.argmax(axis=1)))
    assert [len(part) for part in explain(PIXELS[:0])] == [0, 0]


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_of_two_classes_the_one_decided_on_is_explained(tiny, threshold):
    model = build(tiny, 2, (16, 24)).model
    decision = Decision(("clear", "sick"), "sick", Calibration(), {"sick": threshold}, "hand")
    given = Graph(model, "last", decision=decision).compute(tf.constant(PIXELS))
    decided = np.full(5, int(threshold == 0))
    near(given["map"], raw(model, PIXELS, decided))


def test_of_more_classes_the_one_decided_on_is_explained(tiny):
    model = made(tiny, vectors)
    probabilities = model.predict(PIXELS, verbose=0)
    decision = Decision(("a", "b", "c"), None, Calibration(), {}, "", priors=(0.005, 0.99, 0.005))
    decided = decision.decided(probabilities)
    assert (decided != probabilities.argmax(axis=1)).any(), "the priors decide otherwise"
    given = Graph(model, "last", decision=decision).compute(tf.constant(PIXELS))
    near(given["map"], raw(model, PIXELS, decided))


def of_findings(tiny, head, names):
    """A model of findings whose logits are calibrated one by one, and its decision."""
    model = build(dataclasses.replace(tiny, head=head), len(names), (16, 24), task="findings").model
    rng = np.random.default_rng(2)
    set_calibration(model, rng.uniform(0.3, 3, len(names)).tolist(), rng.normal(0, 1, len(names)).tolist())
    rules = {name: Decision((f"no {name}", name), name, Calibration(), {name: 0.5}, "hand") for name in names}
    return model, FindingDecision(rules)


@pytest.mark.parametrize("tape", [False, True])
@pytest.mark.parametrize("head", [*KNOWN, *UNKNOWN])
def test_the_most_probable_findings_are_explained_in_one_pass(tiny, head, tape):
    model, decision = of_findings(tiny, head, "abcde")
    graph = Graph(model, "last", decision=decision, tape=tape)
    given = graph.compute(tf.constant(PIXELS))
    probabilities = model.predict(PIXELS, verbose=0)
    assert given["map"].shape == (5, 3, 16, 24) and given["mapped"].dtype == tf.int32
    np.testing.assert_array_equal(given["mapped"], np.argsort(-probabilities, axis=1, kind="stable")[:, :3])
    expected = [raw(model, PIXELS, numbers) for numbers in np.transpose(given["mapped"])]
    near(given["map"], np.stack(expected, axis=1))
    assert np.max(expected) > 0
    named = graph.compute(tf.constant(PIXELS), tf.constant([4, 3, 2, 1, 0], tf.int32))
    assert "mapped" not in named
    near(named["map"], raw(model, PIXELS, np.arange(4, -1, -1)))


def test_of_fewer_findings_all_are_explained_and_equal_ones_in_their_order(tiny):
    model, decision = of_findings(tiny, pooled, "ab")
    set_calibration(model, [0.0, 0.0], [1.0, 1.0])
    given = tf.function(Graph(model, "last", decision=decision).compute)(tf.constant(PIXELS))
    assert given["map"].shape == (5, 2, 16, 24)
    np.testing.assert_array_equal(given["mapped"], [[0, 1]] * 5)
    numbers = np.array([0, 1, 1, 0, 1])
    _, maps = OnePass(model, "last")(PIXELS, numbers)
    near(maps, np.asarray(given["map"])[np.arange(5), numbers])


def test_weights_that_change_later_count(tiny):
    model = made(tiny, vectors)
    explain = OnePass(model, "last")
    before = explain(PIXELS, CLASSES)[1]
    for layer in model.layers:
        layer.set_weights([-w if i == 0 else w + 0.1 for i, w in enumerate(layer.get_weights())])
    maps = explain(PIXELS, CLASSES)[1]
    near(maps, raw(model, PIXELS, CLASSES))
    assert np.abs(maps - before).max() > 0.1 * maps.max()


def test_half_precision_is_near(tiny):
    model = build(tiny, 3, (16, 24), mixed_precision=True).model
    near(OnePass(model, "last")(PIXELS, CLASSES)[1], raw(model, PIXELS, CLASSES), share=0.02)


def test_a_layer_that_is_no_map_is_refused(tiny):
    model = build(tiny, 2, (16, 16)).model
    for layer in ("logits", "absent"):
        with pytest.raises(PluginError, match="rank-4"):
            OnePass(model, layer)


def test_a_layer_that_the_logits_do_not_depend_on_is_refused(tiny):
    def blind(features, classes):
        return dense(layers.Flatten()(keras.ops.stop_gradient(features)), classes)

    model = build(dataclasses.replace(tiny, head=blind), 2, (16, 16)).model
    with pytest.raises(PluginError, match="depend"):
        OnePass(model, "last")(PIXELS[:, :, :16])


@pytest.mark.parametrize(("rows", "columns", "size"), [(7, 7, (224, 224)), (1, 2, (32, 49)), (10, 3, (10, 96))])
def test_maps_are_enlarged_as_scipy_does(rows, columns, size):
    small = np.random.default_rng(0).uniform(0, 1, (2, rows, columns)).astype(np.float32)
    large = zoom(small, (1, size[0] / rows, size[1] / columns), order=1)
    np.testing.assert_allclose(enlarge(tf.constant(small), size), large, atol=1e-5)


def test_the_last_row_is_not_lost():
    np.testing.assert_allclose(enlargement(4, 188).sum(axis=1), 1, atol=1e-6)
    assert zoom(np.ones(4), 188 / 4, order=1)[-1] == 0  # what SciPy makes of the same


def test_distances_are_those_of_the_refusal(tiny):
    model = build(tiny, 3, (16, 24)).model
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 16, 24, 1)).astype(np.float32)
    feature_model = features_model(model, "last")
    features = np.asarray(feature_model([images])[1])
    films = images[..., 0]
    distribution = learn(features[:40], films[:40], features[40:], films[40:], 0.05)
    graph = Graph(model, None, distribution=distribution, features="last")
    dark, flat = images * 0.2, np.full_like(images, 90)
    for shown in (images, 255 - images, dark, flat):
        features = np.asarray(feature_model([shown])[1])
        given = graph.compute(tf.constant(shown))
        assert set(given) == {"probabilities", "distance"}
        wanted = distribution.distances(features, shown[..., 0])
        np.testing.assert_allclose(given["distance"], wanted, rtol=1e-3)
    far = dataclasses.replace(distribution, reach=1e9)  # the second score alone
    given = Graph(model, None, distribution=far, features="last").compute(tf.constant(images))
    np.testing.assert_allclose(given["distance"], np.maximum(far.by_pixels(films), 0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.7, 1e4])
def test_a_map_that_is_the_same_everywhere_stays_what_it_is(value):
    finished = tf.function(lambda evidence: enlarge(evidence, (8, 8)))
    large = finished(tf.fill((2, 1, 1), tf.constant(value)))
    np.testing.assert_allclose(large, np.full((2, 8, 8), value), rtol=1e-6)


def branched(size):
    """A network that ends in one cell of an image of 16 pixels, by two branches of which one makes it early."""
    image = keras.Input((*size, 1), name="image")
    stem = layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(layers.Rescaling(1 / 255)(image))
    left = layers.Conv2D(4, 3, strides=2, padding="same", name="left")(stem)
    right = layers.Conv2D(4, 1, name="right")(layers.MaxPooling2D(2)(stem))
    joined = layers.Concatenate(name="joined")([left, right])
    one = layers.Conv2D(8, 4, name="one", strides=4)(joined)
    other = layers.Conv2D(8, 1, name="wide")(joined)
    last = layers.Add(name="last")([one, layers.MaxPooling2D(4)(other)])
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(last)))


@pytest.mark.parametrize(("side", "expected"), [(16, "joined"), (32, "last"), (48, "last")])
def test_a_layer_of_one_cell_gives_way_to_the_last_with_places_that_all_passes_through(side, expected, caplog):
    caplog.set_level("INFO", "chestxray")
    model = branched((side, side))
    model.get_layer("right")(keras.Input((8, 8, 4)))  # as a part of the network is that trains on kept features
    assert with_places(model, "last") == expected
    assert bool(caplog.messages) == (expected != "last")
    # "wide" is nearer to the end, but the other branch goes around it.
    rows, columns = model.get_layer(expected).output.shape[1:3]
    assert min(rows, columns) > 1


def test_a_layer_of_one_cell_stays_where_no_weights_come_before_it(caplog):
    image = keras.Input((4, 4, 1))
    seen = layers.Conv2D(3, 4, name="last")(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(seen)))
    assert with_places(model, "last") == "last" and not caplog.messages


@pytest.mark.parametrize(
    "moving",
    [
        layers.ZeroPadding2D(((0, 3), (0, 3)), name="moving"),
        layers.Cropping2D(((2, 0), (2, 0)), name="moving"),
        layers.Reshape((8, 2, 4), name="moving"),
        layers.Permute((2, 1, 3), name="moving"),
    ],
)
def test_a_layer_whose_cells_do_not_lie_evenly_over_the_image_is_passed_by(moving):
    image = keras.Input((16, 16, 1))
    stem = layers.Conv2D(4, 3, strides=4, padding="same", name="stem")(layers.Rescaling(1 / 255)(image))
    moved = moving(layers.ReLU(name="active")(stem))
    last = layers.Conv2D(8, moved.shape[1:3], name="last")(moved)
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(last)))
    assert with_places(model, "last") == "active"
    assert with_places(model, "moving") == "moving", "what is asked for by name is not exchanged"


def test_a_wrong_layer_is_told_of_the_last_ones_that_can_be_named():
    model = branched((16, 16))
    with pytest.raises(PluginError) as error:
        with_places(model, "joint")
    said = str(error.value)
    assert said.startswith(
        "layer (in a plugin: cam_layer) must name a layer with a rank-4 output, such as wide, joined,"
    )
    assert "Did you mean joined" in said and said.endswith("Received: 'joint'.") and "\n" not in said
    image = keras.Input((4,))
    with pytest.raises(PluginError, match=r"rank-4 output \(this network has none\)\. Received: 'last'"):
        with_places(keras.Model(image, layers.Dense(2, name="last")(image)), "last")
