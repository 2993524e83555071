import dataclasses
from functools import partial

import chestxray_vit as vit
import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from chestxray.errors import WeightsError
from chestxray.explanation.methods import enlarged, raw_maps
from chestxray.explanation.sanity.random_weights import RandomWeights
from chestxray.models.assembly import build
from chestxray.plugin import load_weights

TINY = vit.Transformer(width=12, heads=3, depth=2, patch=4, registers=2, layer_scale=True)
ROWS = {
    "vit_tiny": vit.vit_tiny,
    "vit_small": vit.vit_small,
    "vit_base": vit.vit_base,
    "dinov2_small": vit.dinov2_small,
    "raddino": vit.raddino,
    "dinov2_xray": vit.dinov2_xray,
}


def backbone(network, size, weights=None, repository="nobody/none"):
    pixels = keras.Input((*size, 3))
    return keras.Model(pixels, vit.build(vit.scale(pixels, network), weights, network, repository))


def published(network=TINY, side=3, seed=0):
    """Random weights under timm's names, for images of `side` by `side` patches."""
    draw = np.random.default_rng(seed)
    width, hidden = network.width, 4 * network.width
    shapes = {
        "cls_token": (1, 1, width),
        "reg_token": (1, network.registers, width),
        "pos_embed": (1, side * side, width),
        "patch_embed.proj.weight": (width, 3, network.patch, network.patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(network.depth):
        own = {
            "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
            "attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
            "ls1.gamma": (width,), "ls2.gamma": (width,),
            "mlp.fc1.weight": (hidden, width), "mlp.fc1.bias": (hidden,),
            "mlp.fc2.weight": (width, hidden), "mlp.fc2.bias": (width,),
        }  # fmt: skip
        shapes |= {f"blocks.{block}.{name}": shape for name, shape in own.items()}
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "count"),  # timm's, without the head; the two of transformers without the mask's token
    [
        ("vit_tiny", 5_524_416),
        ("vit_small", 21_665_664),
        ("vit_base", 85_798_656),
        ("dinov2_small", 22_057_344),
        ("raddino", 86_579_712),
        ("dinov2_xray", 85_724_928),
    ],
)
def test_it_has_the_published_number_of_weights(name, count):
    plugin = ROWS[name]
    pixels = keras.Input((*plugin.image_size, 3))
    model = keras.Model(pixels, plugin.build(plugin.scale(pixels), None))
    # The class token's position is added to the class token: one vector less, where it had one.
    width = model.output.shape[-1]
    assert model.count_params() == count - (0 if name == "dinov2_small" else width)
    names = [layer.name for layer in model.layers]
    start = names.index(plugin.finetune_from)
    assert not any(name.startswith(("blocks_10", "blocks_11", "norm")) for name in names[:start])
    assert not any(layer.weights and not layer.name.startswith(("blocks_1", "norm")) for layer in model.layers[start:])
    rows, columns = (side // plugin.size_multiple for side in plugin.image_size)
    assert model.get_layer(plugin.cam_layer).output.shape == (None, rows, columns, width)


def test_all_its_layers_are_ordinary_ones_so_that_a_saved_model_loads_anywhere(tmp_path):
    model = backbone(TINY, (8, 12))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Layer):
            assert getattr(keras.layers, type(layer).__name__) is type(layer)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 12, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded(images), model(images))


def test_one_step_trains_every_weight_tokens_and_positions_among_them():
    network = vit.Transformer(width=12, heads=3, depth=2, patch=4, registers=2, layer_scale=True, swiglu=True)
    model = backbone(network, (8, 12))
    before = {variable.path: np.asarray(variable) for variable in model.weights}
    model.compile(keras.optimizers.SGD(1.0), "mse")
    draw = np.random.default_rng(0)
    model.train_on_batch(draw.uniform(0, 255, (4, 8, 12, 3)), draw.normal(size=(4, 12)))
    assert {"tokens/kernel", "pos_embed/kernel", "blocks_0_ls1/kernel", "blocks_1_mlp_w12/kernel"} <= set(before)
    assert [variable.path for variable in model.weights if (np.asarray(variable) == before[variable.path]).all()] == []


def test_published_positions_are_loaded_as_they_are_at_their_size_and_interpolated_at_another(tmp_path):
    tensors = published()
    save_file(tensors, tmp_path / "model.safetensors")
    native, other = backbone(TINY, (12, 12)), backbone(TINY, (20, 8))
    for model in (native, other):
        load_weights(model, tmp_path / "model.safetensors", convert=vit.convert)
    positions = tensors["pos_embed"].reshape(3, 3, 12)
    np.testing.assert_array_equal(native.get_layer("pos_embed").kernel[0], positions)
    found = np.asarray(other.get_layer("pos_embed").kernel[0])
    assert found.shape == (5, 2, 12)
    np.testing.assert_allclose(found, vit.interpolate(positions, (5, 2), antialias=True), atol=1e-6)
    tokens = np.concatenate([tensors["cls_token"][0], tensors["reg_token"][0]])
    np.testing.assert_array_equal(other.get_layer("tokens").kernel[0], tokens)


@pytest.mark.parametrize("antialias", [True, False])
def test_interpolation_keeps_a_constant_a_slope_and_what_is_of_that_size(antialias):
    ramp = np.broadcast_to(np.arange(16.0)[:, None, None], (16, 6, 1))
    found = vit.interpolate(ramp, (32, 6), antialias=antialias)
    np.testing.assert_allclose(found[8:24, 0, 0], (np.arange(8, 24) + 0.5) / 2 - 0.5, atol=1e-9 if antialias else 0.1)
    even = vit.interpolate(np.ones((5, 7, 2)), (3, 9), antialias=antialias)
    np.testing.assert_allclose(even, np.ones((3, 9, 2)), atol=1e-12)
    np.testing.assert_array_equal(vit.interpolate(ramp, (16, 6), antialias=antialias), ramp)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The Hub's own cache, with a place for a file of `nobody/none`, and no server to be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    root, commit = tmp_path / "models--nobody--none", "0" * 40
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True)
    return root / "snapshots" / commit / "model.safetensors"


def test_weights_by_name_come_through_the_hubs_client(hub):
    save_file(published(), hub)
    model = backbone(TINY, (8, 8), "imagenet")
    np.testing.assert_array_equal(model.get_layer("blocks_1_attn_proj").bias, published()["blocks.1.attn.proj.bias"])


def test_weights_that_are_missing_or_of_another_shape_are_refused_in_one_line(hub):
    with pytest.raises(WeightsError, match=r"Cannot fetch the weights https://huggingface\.co/nobody/none") as caught:
        backbone(TINY, (8, 8), "imagenet")
    assert "\n" not in str(caught.value)
    save_file(published() | {"blocks.1.mlp.fc1.bias": np.zeros(5, np.float32)}, hub)
    with pytest.raises(WeightsError, match=r"layer blocks_1_mlp_fc1 expects bias of shape \(48,\)") as caught:
        backbone(TINY, (8, 8), "imagenet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format_", ["onnx", "litert"])
def test_it_is_exported_with_batches_of_any_size(format_):
    from chestxray.explanation.inference_graph import Graph
    from chestxray.export import formats

    pixels = keras.Input((8, 12, 3), name="pixels")
    features = vit.build(vit.scale(pixels, TINY), None, TINY, "none")
    logits = keras.layers.Dense(2, name="logits")(features)
    answer = keras.layers.Activation("softmax")(keras.layers.Rescaling(1.0, name="calibration")(logits))
    graph = Graph(keras.Model(pixels, answer), None)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    expected = np.asarray(graph.compute(images.astype(np.float32))["probabilities"])
    if format_ == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(formats.onnx_model(graph).SerializeToString())
        found = session.run(["probabilities"], {session.get_inputs()[0].name: images})[0]
    else:
        from ai_edge_litert.interpreter import Interpreter

        signature = [tf.TensorSpec((None, 8, 12, 3), tf.uint8, name="pixels")]
        function = tf.function(lambda pixels: graph.compute(tf.cast(pixels, tf.float32)), input_signature=signature)
        content = formats.litert_model(graph.probe, function)
        found = Interpreter(model_content=content).get_signature_runner()(pixels=images)["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_attention_rollout_follows_the_class_token_through_the_blocks():
    plugin = dataclasses.replace(
        vit.vit_tiny,
        build=partial(vit.build, network=TINY, repository="nobody/none"),
        scale=partial(vit.scale, network=TINY),
        image_size=(12, 16),
        minimum_size=(8, 8),
        size_multiple=4,
    )
    model = build(plugin, 2, (12, 16)).model
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 1)).astype(np.uint8)
    names = [f"blocks_{block}_attn_qkv" for block in range(2)]
    rollout = np.eye(15)
    for qkv in keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])(pixels.astype("float32")):
        query, key, _ = np.moveaxis(np.reshape(qkv, (2, 15, 3, 3, 4)), 2, 0)
        scores = np.exp(np.einsum("bthc,bshc->bhts", query, key) / 2)
        weights = (scores / scores.sum(axis=-1, keepdims=True)).mean(axis=1)
        rollout = (weights + np.eye(15)) / 2 @ rollout
    # The class token and two registers stand before the patches.
    expected = enlarged(rollout[:, 0, 3:].reshape(2, 3, 4).astype(np.float32), (12, 16))
    maps = raw_maps("attention-rollout", model, "patch_map", pixels, np.array([0, 1]))
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    for method in ("gradcam", "layercam", "hirescam"):
        assert raw_maps(method, model, "patch_map", pixels, np.array([0, 1])).shape == (2, 12, 16)


def test_random_weights_reach_every_layer_tokens_and_positions_among_them():
    model, draw = backbone(TINY, (8, 8)), np.random.default_rng(0)
    learnt = [layer for layer in model.layers if layer.trainable_weights]
    for layer in learnt:  # none that an initialiser would give
        layer.set_weights([weight + draw.uniform(0.1, 0.2, weight.shape) for weight in layer.get_weights()])
    copy = RandomWeights(model, seed=0)
    copy.randomise(range(len(copy.groups)))
    for layer in learnt:
        drawn = copy.model.get_layer(layer.name).get_weights()
        assert not any(map(np.array_equal, layer.get_weights(), drawn)), layer.name
