"""Every method of heat maps beside its reference: tf-keras-vis, or the paper's formula on a network worked by hand."""

import dataclasses
import gc
import re
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from chestxray.errors import InputError, NonFiniteError, PluginError
from chestxray.explanation import methods
from chestxray.explanation.attention_rollout import attention, multiplied
from chestxray.explanation.library_maps import layer_maps
from chestxray.explanation.map_gradients import COPIES, NOISE, attributions
from chestxray.explanation.methods import METHODS, enlarged, images_at_once, raw_maps
from chestxray.explanation.perturbation_maps import SQUARES
from chestxray.models.assembly import build, logits_model, save
from chestxray.plugin import ModelPlugin
from chestxray.recipe import EXPLANATIONS, PIXEL_EXPLANATIONS
from heads import branched, convolved, flattened, pooled

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 1)).astype(np.uint8)
FLOATS = PIXELS.astype(np.float32)
CLASSES = np.array([0, 2, 1])
OF_LAYER = ("gradcam", "gradcam++", "layercam", "scorecam")
SIZE = (16, 24)


def transformer(scaled, weights):
    """Two blocks of attention of two heads between a class token and patches of 8 x 8 pixels."""
    x = layers.Conv2D(8, 8, 8)(scaled)
    rows, columns = x.shape[1:3]
    x = layers.Reshape((rows * columns, 8))(x)
    x = layers.Concatenate(axis=1)([layers.Dense(8)(ops.mean(x, axis=1, keepdims=True)), x])
    for block in range(2):
        if block:
            patches = layers.Reshape((rows, columns, 8), name="patch_map")(x[:, 1:])
            x = layers.Concatenate(axis=1)([x[:, :1], layers.Reshape((rows * columns, 8))(patches)])
        heads = [layers.Reshape((1 + rows * columns, 2, 4))(layers.Dense(8)(x)) for _ in range(3)]
        y = layers.Reshape((1 + rows * columns, 8))(ops.dot_product_attention(*heads))
        x = layers.Add()([x, y])
    return layers.LayerNormalization()(x[:, 0])


@pytest.fixture
def patches():
    return ModelPlugin(
        build=transformer,
        scale=lambda pixels: layers.Rescaling(1 / 255)(pixels),
        image_size=SIZE,
        minimum_size=(16, 16),
        channels=3,
        cam_layer="patch_map",
    )


def made(plugin, head=None, *, mixed=False, task="classes"):
    """A model whose biases and normalisations have moved from where they started, and whose maps are not faint."""
    plugin = plugin if head is None else dataclasses.replace(plugin, head=head)
    model = build(plugin, 3, SIZE, mixed_precision=mixed, task=task).model
    generator = np.random.default_rng(1)
    for layer in model.layers:
        layer.set_weights([w + generator.uniform(-0.05, 0.1, w.shape) for w in layer.get_weights()])
    return model


@pytest.mark.parametrize("head", [branched, flattened, convolved])
@pytest.mark.parametrize("method", OF_LAYER)
def test_maps_of_a_layer_are_those_of_tf_keras_vis(tiny, method, head):
    model = made(tiny, head)
    _equal_the_library(model, method, "last", 1e-4)


@pytest.mark.parametrize("method", OF_LAYER)
def test_a_token_grid_is_a_layer_as_any_other(patches, method):
    _equal_the_library(made(patches), method, "patch_map", 1e-4)


@pytest.mark.parametrize("method", OF_LAYER)
def test_maps_of_a_layer_are_those_of_tf_keras_vis_in_half_precision(tiny, method):
    _equal_the_library(made(tiny, convolved, mixed=True), method, "last", 0.02)


def _equal_the_library(model, method, layer, within):
    library = enlarged(layer_maps(method, logits_model(model), layer, FLOATS, CLASSES), SIZE)
    if method == "gradcam++":
        # The library's gradients are of exp(logit), a factor of each map that ours leave out.
        logits = logits_model(model).predict(FLOATS, verbose=0)[np.arange(3), CLASSES]
        library /= np.exp(logits)[:, None, None]
    assert library.max() > 0
    np.testing.assert_allclose(raw_maps(method, model, layer, PIXELS, CLASSES), library, atol=within * library.max())


def test_gradcam_plus_plus_of_a_high_logit_is_a_map_on_the_scale_of_others(tiny):
    model = made(tiny, pooled)
    maps = raw_maps("gradcam++", model, "last", PIXELS, CLASSES)
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel, bias + 200])
    np.testing.assert_allclose(raw_maps("gradcam++", model, "last", PIXELS, CLASSES), maps, rtol=1e-4)


def test_scorecam_of_findings_takes_the_probability_of_the_one_finding(tiny):
    model = made(tiny, pooled, task="findings")
    maps = raw_maps("scorecam", model, "last", PIXELS, np.full(3, 1))
    logit = model.get_layer("logits").output[:, 1:2]
    # The softmax of (logit, 0) is the sigmoid of the logit.
    alone = keras.Model(model.inputs, layers.Concatenate()([logit, ops.zeros_like(logit)]))
    library = enlarged(layer_maps("scorecam", alone, "last", FLOATS, np.zeros(3, int)), SIZE)
    np.testing.assert_allclose(maps, library, atol=1e-4 * library.max())


@pytest.mark.parametrize(("architecture", "mixed"), [("tiny", True), ("patches", False)])
def test_saliency_and_smoothgrad_are_those_of_tf_keras_vis(architecture, mixed, request):
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    model = made(request.getfixturevalue(architecture), mixed=mixed)
    library, within = Saliency(logits_model(model), clone=False), 0.02 if mixed else 1e-4
    plain = library(CategoricalScore(CLASSES.tolist()), FLOATS, normalize_map=False)
    maps = raw_maps("saliency", model, None, PIXELS, CLASSES)
    np.testing.assert_allclose(maps, plain, atol=within * plain.max())
    smooth = []
    for image, number in zip(FLOATS[:1], CLASSES, strict=False):
        np.random.seed(7)
        score = CategoricalScore([int(number)])
        smooth.append(library(score, image[None], smooth_samples=COPIES, smooth_noise=NOISE, normalize_map=False)[0])
    maps = raw_maps("smoothgrad", model, None, PIXELS, CLASSES, seed=7)
    np.testing.assert_allclose(maps[:1], smooth, atol=within * np.max(smooth))
    assert np.abs(maps - raw_maps("smoothgrad", model, None, PIXELS, CLASSES, seed=8)).max() > within * maps.max()


def linear(weights, features=None):
    """A model of two classes whose logit of class 0 is the sum of `weights` (4, 4) times the pixels."""
    pixels = keras.Input((4, 4, 1), name="pixels")
    x = layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="map")(pixels)
    x = layers.Flatten()(x)
    kernel = np.stack([weights.ravel(), np.zeros(16)], axis=1)
    x = layers.Dense(2, use_bias=False, name="logits")(x)
    x = layers.Rescaling(1.0, name="calibration")(x)
    model = keras.Model(pixels, layers.Activation("softmax", name="probabilities")(x))
    model.get_layer("logits").set_weights([kernel])
    return model


WEIGHTS = np.arange(16.0).reshape(4, 4) / 1000 - 0.005
IMAGE = np.random.default_rng(3).integers(1, 255, (1, 4, 4, 1)).astype(np.uint8)
FIRST = np.zeros(1, int)


def test_hirescam_is_the_positive_part_of_features_times_gradients():
    # Draelos 2020, equation 3: here the sum over the one channel of feature x weight.
    maps = raw_maps("hirescam", linear(WEIGHTS), "map", IMAGE, FIRST)
    np.testing.assert_allclose(maps[0], np.maximum(IMAGE[0, ..., 0] * WEIGHTS, 0), rtol=1e-5, atol=1e-7)


def test_integrated_gradients_of_a_linear_score_are_pixel_times_weight():
    # Sundararajan et al. 2017, section 3: (x - x') times the mean gradient on the path, x' black.
    maps = raw_maps("integrated-gradients", linear(WEIGHTS), None, IMAGE, FIRST)
    np.testing.assert_allclose(maps[0], np.maximum(IMAGE[0, ..., 0] * WEIGHTS, 0), rtol=1e-4, atol=1e-6)


def test_integrated_gradients_add_up_to_the_difference_of_the_logit(tiny, patches):
    for plugin in (tiny, patches):
        model = made(plugin)
        found = attributions(model, 256)(tf.constant(FLOATS), tf.constant(CLASSES, tf.int32))
        logits = logits_model(model)
        difference = np.asarray(logits([FLOATS]) - logits([0 * FLOATS]))[np.arange(3), CLASSES]
        np.testing.assert_allclose(np.sum(found, axis=(1, 2, 3)), difference, rtol=0.02, atol=1e-3)


def test_occlusion_is_what_the_probability_falls_by_where_a_square_lies():
    # With 4 x 4 pixels the square of an eighth is one pixel (Zeiler and Fergus 2014, section 4.2).
    assert SQUARES > 4
    model = linear(WEIGHTS)
    maps = raw_maps("occlusion", model, None, IMAGE, FIRST, batch_size=5)
    whole = float(model(IMAGE.astype(np.float32))[0, 0])
    for row, column in np.ndindex(4, 4):
        hidden = IMAGE.astype(np.float32)
        hidden[0, row, column] = IMAGE.mean()
        fall = whole - float(model(hidden)[0, 0])
        np.testing.assert_allclose(maps[0, row, column], max(fall, 0), atol=1e-6)


def test_occluding_squares_overlap_by_half_and_cover_the_image(tiny):
    model = made(tiny)
    probabilities = keras.Model(model.inputs[0], layers.Softmax()(model.get_layer("logits").output))
    covered, falls = np.zeros(SIZE), np.zeros(SIZE)
    whole = float(probabilities(FLOATS[:1])[0, 0])
    for top in range(15):
        for left in (*range(22),):
            if top + 2 > 16 or left + 3 > 24:
                continue
            hidden = FLOATS[:1].copy()
            hidden[0, top : top + 2, left : left + 3] = FLOATS[0].mean()
            falls[top : top + 2, left : left + 3] += whole - float(probabilities(hidden)[0, 0])
            covered[top : top + 2, left : left + 3] += 1
    maps = raw_maps("occlusion", model, None, PIXELS[:1], FIRST)
    np.testing.assert_allclose(maps[0], np.maximum(falls / covered, 0), atol=1e-5)


def test_attention_is_the_mean_over_heads_of_the_softmax_of_query_times_key():
    query, key = np.random.default_rng(4).normal(size=(2, 1, 3, 2, 4)).astype(np.float32)
    weights = np.exp(np.einsum("thc,shc->hts", query[0], key[0]) / 2)
    weights /= weights.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(attention(query, key)[0], weights.mean(axis=0), atol=1e-6)


def test_rollout_multiplies_the_blocks_with_half_the_identity():
    # Abnar and Zuidema 2020, equations 1 and 2, by hand for two blocks of two tokens.
    first, second = np.array([[[1.0, 0.0], [0.5, 0.5]]]), np.array([[[0.0, 1.0], [0.0, 1.0]]])
    # Mixed: [[1, 0], [.25, .75]] and [[.5, .5], [0, 1]].
    expected = [[0.5 + 0.125, 0.375], [0.25, 0.75]]
    np.testing.assert_allclose(multiplied([first.astype("float32"), second.astype("float32")])[0], expected)


def test_attention_rollout_reads_the_class_token_in_the_order_of_the_blocks(patches):
    model = made(patches)
    maps = raw_maps("attention-rollout", model, "patch_map", PIXELS, CLASSES)
    operations = [one for one in model.operations if type(one).__name__ == "DotProductAttention"]
    pairs = [one._inbound_nodes[-1].input_tensors[:2] for one in operations]
    weights = [attention(*pair) for pair in keras.Model(model.inputs[0], pairs)(FLOATS)]
    mixed = [(np.asarray(one) + np.eye(7)) / 2 for one in weights]
    expected = (mixed[1] @ mixed[0])[:, 0, 1:].reshape(-1, 2, 3)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(maps, enlarged(expected.astype(np.float32), SIZE), atol=1e-5)


def test_maps_are_the_same_in_parts_and_after_a_reload_and_follow_the_weights(patches, tmp_path):
    model = made(patches)
    before = {method: raw_maps(method, model, "patch_map", PIXELS, CLASSES) for method in METHODS}
    for method, maps in before.items():
        assert maps.shape == PIXELS.shape[:3] and maps.dtype == np.float32 and maps.min() >= 0 and maps.max() > 0
        parts = raw_maps(method, model, "patch_map", PIXELS, CLASSES, batch_size=2)
        np.testing.assert_allclose(parts, maps, atol=1e-4 * maps.max(), err_msg=method)
    save(model, tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for layer in model.layers:
        layer.set_weights([w * 0.5 for w in layer.get_weights()])
    for method, maps in before.items():
        reloaded = raw_maps(method, again, "patch_map", PIXELS, CLASSES)
        np.testing.assert_allclose(reloaded, maps, atol=1e-4 * maps.max(), err_msg=method)
        assert np.abs(raw_maps(method, model, "patch_map", PIXELS, CLASSES) - maps).max() > 1e-4 * maps.max(), method


def unnamed(scaled, weights):
    x = layers.Activation("relu")(layers.Conv2D(8, 3, 2)(scaled))
    return layers.Activation("relu")(layers.Conv2D(8, 3, 2)(x + ops.relu(x)))


def test_the_layers_may_have_the_names_that_keras_gives_to_one_more(tiny, tmp_path):
    """In a process that has only loaded the model, the names that Keras gives begin anew."""
    keras.utils.clear_session()
    save(build(dataclasses.replace(tiny, build=unnamed, head=pooled), 3, SIZE).model, tmp_path / "model.keras")
    keras.utils.clear_session()
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert {"activation", "activation_1", "conv2d", "relu", "add"} <= {one.name for one in model.operations}
    for method in sorted(set(METHODS) - {"attention-rollout"}):
        layer = None if method in PIXEL_EXPLANATIONS else "activation_1"
        assert np.isfinite(raw_maps(method, model, layer, FLOATS, CLASSES)).all(), method
        keras.utils.clear_session()


def test_half_precision_gives_finite_maps(patches):
    model = made(patches, mixed=True)
    for method in METHODS:
        maps = raw_maps(method, model, "patch_map", PIXELS, CLASSES)
        assert maps.dtype == np.float32 and np.isfinite(maps).all() and maps.max() > 0, method


def test_without_a_layer_there_are_the_methods_of_pixels_and_a_reason(tiny):
    flat = dataclasses.replace(
        tiny, build=lambda scaled, weights: layers.Dense(4)(layers.Flatten()(scaled)), cam_layer=None
    )
    model = build(flat, 3, SIZE).model
    for method, about in METHODS.items():
        if about.needs == "pixels":
            assert raw_maps(method, model, None, PIXELS[:1], CLASSES[:1]).shape == (1, *SIZE)
            continue
        with pytest.raises(
            InputError, match=r"^\S+ needs a layer of feature maps, and .* need none: saliency, [^\n]+$"
        ):
            raw_maps(method, model, None, PIXELS, CLASSES)


def test_a_wrong_layer_is_named(tiny):
    model = made(tiny)
    for method in (name for name, one in METHODS.items() if one.needs == "layer"):
        for layer in ("absent", "logits"):
            with pytest.raises(PluginError, match=f"rank-4 output, such as last, .* Received: '{layer}'"):
                raw_maps(method, model, layer, PIXELS, CLASSES)


def test_other_mistakes_have_one_line(tiny, monkeypatch):
    model = made(tiny)
    with pytest.raises(InputError, match=r"^method must be one of gradcam, .*Received: 'gradcamm'\.$"):
        raw_maps("gradcamm", model, "last", PIXELS, CLASSES)
    with pytest.raises(InputError, match=r"from 0 to 2\. Received: 0 to 3"):
        raw_maps("gradcam", model, "last", PIXELS, np.array([0, 3, 1]))
    with pytest.raises(InputError, match=r"whole numbers\. Received: .*float64"):
        raw_maps("gradcam", model, "last", PIXELS, np.array([0.0, 1.0, 1.0]))
    with pytest.raises(InputError, match="no attention between patches"):
        raw_maps("attention-rollout", model, "last", PIXELS, CLASSES)
    monkeypatch.setattr(methods.backend, "on_jax", lambda: True)
    with pytest.raises(InputError, match=r"saliency needs Keras on TensorFlow\. On JAX there are: gradcam, scorecam"):
        raw_maps("saliency", model, "last", PIXELS, CLASSES)


def test_numbers_that_are_not_finite_are_no_map(patches):
    model = made(patches)
    for layer in model.layers:
        layer.set_weights([np.full_like(w, np.nan) for w in layer.get_weights()])
    for method in METHODS:
        with pytest.raises(NonFiniteError, match=f"cannot be drawn by {re.escape(method)}: the first layer"):
            raw_maps(method, model, "patch_map", PIXELS, CLASSES)


def test_a_gradient_alone_that_is_not_finite_is_named(tiny):
    def steep(features, classes):
        # The square root of 0 is 0, its slope infinite.
        x = layers.GlobalAveragePooling2D()(features)
        return layers.Dense(classes, name="logits")(ops.sqrt(x * 0.0))

    model = build(dataclasses.replace(tiny, head=steep), 3, SIZE).model
    with pytest.raises(NonFiniteError, match="all layers of the graph are finite, but the gradient"):
        raw_maps("layercam", model, "last", PIXELS, CLASSES)


def test_no_images_have_no_maps(tiny):
    assert raw_maps("gradcam", made(tiny), "last", PIXELS[:0], CLASSES[:0]).shape == (0, *SIZE)


def test_images_at_once_follow_the_size_of_the_layers(tiny):
    model = made(tiny)
    assert images_at_once(model) == 32
    assert images_at_once(model, limit=1) == 1
    small, large = (images_at_once(build(tiny, 2, size).model, limit=2**20) for size in ((16, 16), (32, 32)))
    assert 1 < small // large <= 5


def test_what_is_compiled_is_made_once_and_goes_with_its_model(tiny, monkeypatch):
    model = made(tiny)
    raw_maps("layercam", model, "last", PIXELS, CLASSES)
    with monkeypatch.context() as patch:
        patch.setattr(methods, "_made", None)
        raw_maps("layercam", model, "last", PIXELS, CLASSES)
    known = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert known() is None


def test_the_names_are_those_of_a_recipe():
    assert tuple(METHODS) == EXPLANATIONS
    assert tuple(name for name, one in METHODS.items() if one.needs == "pixels") == PIXEL_EXPLANATIONS
