import dataclasses

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from chestxray.errors import InputError, PluginError, WeightsError
from chestxray.models.assembly import build, features_model, freeze, logits_model, moments
from chestxray.plugin import pooled_head

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1)).astype(np.float32)


def test_raw_pixels_to_probabilities_in_one_flat_graph(tiny, tmp_path):
    built = build(tiny, 3, (16, 16))
    probabilities = built.model.predict(PIXELS, verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert not [layer for layer in built.model.layers if isinstance(layer, keras.Model)]
    built.model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    np.testing.assert_allclose(again.predict(PIXELS, verbose=0), probabilities, rtol=1e-6)


def test_the_seed_fixes_the_weights(tiny):
    a, b, c = (build(tiny, 2, (16, 16), seed=seed).model.get_weights() for seed in (1, 1, 2))
    assert all((x == y).all() for x, y in zip(a, b, strict=True))
    assert any((x != y).any() for x, y in zip(a, c, strict=True))


def test_backbone_is_what_the_plugin_built(tiny):
    assert build(tiny, 2, (16, 16)).backbone == ("first", "norm", "last")


@pytest.mark.parametrize(
    ("phase", "trained"),
    [
        ("head", {"logits"}),
        ("finetune", {"last", "logits"}),
        ("full", {"first", "norm", "last", "logits"}),
    ],
)
def test_phases_train_what_they_say(tiny, phase, trained):
    built = build(tiny, 2, (16, 16))
    freeze(built, "head")
    freeze(built, phase)
    assert {layer.name for layer in built.model.layers if layer.trainable_weights} == trained


def test_finetune_from_an_unknown_layer_is_the_plugins_mistake(tiny):
    built = build(dataclasses.replace(tiny, finetune_from="nowhere"), 2, (16, 16))
    with pytest.raises(PluginError, match="nowhere"):
        freeze(built, "finetune")


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [(("norm",), {"norm", "logits"}), (("f*t", "l?st"), {"first", "last", "logits"})],
)
def test_the_second_phase_trains_the_layers_of_the_patterns(tiny, patterns, trained):
    built = build(dataclasses.replace(tiny, finetune_from=None, finetune=patterns), 2, (16, 16))
    freeze(built, "finetune")
    assert {layer.name for layer in built.model.layers if layer.trainable_weights} == trained


def test_a_pattern_that_matches_nothing_is_the_plugins_mistake(tiny):
    built = build(dataclasses.replace(tiny, finetune_from=None, finetune=("norm", "block5_*")), 2, (16, 16))
    with pytest.raises(PluginError, match="block5_"):
        freeze(built, "finetune")
    with pytest.raises(PluginError, match="not both"):
        dataclasses.replace(tiny, finetune_from="last", finetune=("norm",))


def test_what_the_author_froze_is_trained_in_no_phase(tiny):
    def made(scaled, weights):
        fixed = keras.layers.Conv2D(4, 1, trainable=False, name="fixed")(scaled)
        return tiny.build(fixed, weights)

    for channels in (1, 3):
        built = build(dataclasses.replace(tiny, build=made, channels=1), 2, (16, 16), channels=channels)
        for phase in ("head", "finetune", "full"):
            freeze(built, phase)
            assert built.model.get_layer("logits").trainable_weights
            frozen = {layer.name for layer in built.model.layers if layer.weights and not layer.trainable}
            assert {"fixed"} <= frozen
            assert ("colour_to_grey" in frozen) is (channels == 3)


def test_a_failure_of_convert_is_not_blamed_on_the_file(tiny, tmp_path):
    save_file({"conv1.weight": np.zeros((1, 1), np.float32)}, tmp_path / "published.safetensors")

    def convert(*given):
        return {"first/kernel": given[0]["stem.weight"]}

    with pytest.raises(WeightsError, match=r"convert of the plugin .* KeyError: 'stem.weight'") as caught:
        build(dataclasses.replace(tiny, convert=convert), 2, (16, 16), weights=str(tmp_path / "published.safetensors"))
    assert "cut short" not in str(caught.value) and "\n" not in str(caught.value)


def test_per_pixel_standardisation_is_keras_normalization_adapted(tiny):
    stack = np.random.default_rng(1).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    rows = np.arange(3, 33)
    mean, variance = moments(stack, rows, block=7)
    built = build(tiny, 2, (16, 16), normalisation="pixel", moments=(mean, variance))
    adapted = keras.layers.Normalization(axis=(1, 2, 3))
    adapted.adapt(stack[rows][..., None].astype(np.float32))
    ours = keras.Model(built.model.inputs, built.model.get_layer("per_pixel").output).predict(PIXELS, verbose=0)
    np.testing.assert_allclose(ours[..., :1], adapted(PIXELS), atol=1e-4)


def test_a_constant_pixel_does_not_blow_up(tiny):
    flat = (np.zeros((16, 16), np.float32), np.zeros((16, 16), np.float32))
    built = build(tiny, 2, (16, 16), normalisation="pixel", moments=flat)
    scaled = keras.Model(built.model.inputs, built.model.get_layer("per_pixel").output).predict(PIXELS, verbose=0)
    assert np.abs(scaled).max() <= 255


def test_per_image_standardisation_survives_exposure(tiny):
    model = build(tiny, 2, (16, 16), normalisation="image").model
    np.testing.assert_allclose(model.predict(PIXELS * 0.5 + 20, verbose=0), model.predict(PIXELS, verbose=0), atol=1e-4)


def test_colour_pixels_are_taken_too(tiny):
    grey = dataclasses.replace(tiny, channels=1)
    colour = build(grey, 2, (16, 16), channels=3).model
    from_grey = build(grey, 2, (16, 16)).model
    np.testing.assert_allclose(
        colour.predict(np.repeat(PIXELS, 3, axis=-1), verbose=0),
        from_grey.predict(PIXELS, verbose=0),
        atol=1e-5,
    )


def test_mixed_precision_computes_in_half_and_ends_in_single(tiny):
    model = build(tiny, 2, (16, 16), mixed_precision=True).model
    assert model.get_layer("first").compute_dtype == "float16"
    assert model.get_layer("logits").compute_dtype == "float32"
    assert model.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32", "the global policy is put back"


def test_batch_norm_momentum_is_set(tiny):
    assert build(tiny, 2, (16, 16), batch_norm_momentum=0.5).model.get_layer("norm").momentum == 0.5


def test_attention_weighs_places_and_begins_as_the_mean(tiny):
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 24, 1)).astype(np.float32)
    mean = build(tiny, 3, (16, 24), seed=5).model
    built = build(tiny, 3, (16, 24), seed=5, pooling="attention")
    model = built.model
    model.get_layer("logits").set_weights(mean.get_layer("logits").get_weights())
    np.testing.assert_allclose(model(images), mean(images), atol=1e-6)
    # Ilse et al. 2018, equation 8, by hand.
    draw = np.random.default_rng(1)
    for name in ("pool_hidden", "pool_scores"):
        layer = model.get_layer(name)
        layer.set_weights([draw.normal(size=w.shape) for w in layer.get_weights()])
    map_, attended = keras.Model(
        model.input, [model.get_layer(tiny.cam_layer).output, model.get_layer("pool_vector").output]
    )(images)
    places = np.asarray(map_).reshape(3, -1, map_.shape[-1])
    (v, b), (w,) = (model.get_layer(name).get_weights() for name in ("pool_hidden", "pool_scores"))
    scores = np.tanh(places @ v + b) @ w
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(attended, (weights * places).sum(axis=1), rtol=1e-4)
    freeze(built, "head")
    assert {layer.name for layer in model.layers if layer.trainable_variables} == {
        "pool_hidden", "pool_scores", "logits"
    }  # fmt: skip


def test_attention_needs_the_places_of_a_map_and_the_default_head(tiny):
    vector = dataclasses.replace(
        tiny, cam_layer=None, build=lambda scaled, _: keras.layers.Flatten(name="flat")(scaled), finetune_from=None
    )
    with pytest.raises(
        InputError, match=r"feature map; x gives one vector an image, and no map\. Allowed: pooling mean"
    ):
        build(vector, 2, (16, 16), name="x", pooling="attention")
    own = dataclasses.replace(tiny, head=lambda features, classes: keras.layers.Dense(classes)(features[:, 0, 0]))
    with pytest.raises(InputError, match="x has a head of its own"):
        build(own, 2, (16, 16), name="x", pooling="attention")


def test_logits_model_ends_before_the_softmax(tiny):
    model = build(tiny, 2, (16, 16)).model
    logits = logits_model(model).predict(PIXELS, verbose=0)
    np.testing.assert_allclose(keras.ops.softmax(logits), model.predict(PIXELS, verbose=0), rtol=1e-5)


@pytest.mark.parametrize("name", ["pixels", "calibration", "probabilities", "first"])
def test_two_layers_of_one_name_are_the_plugins_mistake(tiny, name):
    def head(features, classes):
        return pooled_head(keras.layers.Identity(name=name)(features), classes)

    with pytest.raises(PluginError, match=rf'layers of net must have a name each, .*"{name}" is used 2 times'):
        build(dataclasses.replace(tiny, head=head), 2, (16, 16), name="net")


def test_features_are_those_of_the_layer_whatever_others_are_called(tiny):
    def head(features, classes):
        return pooled_head(keras.layers.Identity(name="pooled_features")(features), classes)

    model = build(dataclasses.replace(tiny, head=head), 2, (16, 16)).model
    probabilities, features = features_model(model, "last").predict(PIXELS, verbose=0)
    np.testing.assert_array_equal(probabilities, model.predict(PIXELS, verbose=0))
    maps = keras.Model(model.inputs, model.get_layer("last").output).predict(PIXELS, verbose=0)
    np.testing.assert_allclose(features, maps.mean(axis=(1, 2)), rtol=1e-5)


def test_sizes_below_the_minimum_are_refused(tiny):
    with pytest.raises(InputError, match=r"image_size of net must be at least 8x8 pixels. Received: 4x16"):
        build(tiny, 2, (4, 16), name="net")


def test_a_head_of_the_wrong_width_is_the_plugins_mistake(tiny):
    wrong = dataclasses.replace(tiny, head=lambda features, classes: features)
    with pytest.raises(PluginError, match=r"head must return logits \(batch, 2\)"):
        build(wrong, 2, (16, 16))
