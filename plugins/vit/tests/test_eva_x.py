import dataclasses
from functools import partial

import chestxray_eva_x as eva
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from chestxray.explanation.methods import enlarged, raw_maps
from chestxray.models.assembly import build
from chestxray.plugin import load_weights

TINY = eva.Transformer(width=16, heads=2, depth=2, patch=4)
ROWS = {"tiny": eva.eva_x_tiny, "small": eva.eva_x_small, "base": eva.eva_x_base}


def backbone(network, size):
    pixels = keras.Input((*size, 3))
    return keras.Model(pixels, eva.build(eva.scale(pixels), None, network))


def published(*, fused, side=3):
    """Random weights under timm's names, queries, keys and values in one; or under those of EVA-02's files, apart."""
    draw = np.random.default_rng(0)
    width, hidden, patch = 16, 42, TINY.patch
    shapes = {
        "cls_token": (1, 1, width), "mask_token": (1, 1, width), "pos_embed": (1, 1 + side * side, width),
        "patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,), "rope.freqs_cos": (9, 8), "lm_head.weight": (5, width),
        "lm_head.bias": (5,),
    }  # fmt: skip
    gates = {"mlp.fc1.weight": (2 * hidden, width), "mlp.fc1.bias": (2 * hidden,)}
    queries = {"attn.qkv.weight": (3 * width, width)}
    last = "mlp.fc2"
    if not fused:
        gates = {
            f"mlp.w{n}.{kind}": (hidden, width)[: 2 - (kind == "bias")] for n in "12" for kind in ("weight", "bias")
        }
        queries = {f"attn.{part}_proj.weight": (width, width) for part in "qkv"}
        last = "mlp.w3"
    for block in range(TINY.depth):
        own = {
            "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
            **queries, "attn.q_bias": (width,), "attn.v_bias": (width,), "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,), **gates, f"{last}.weight": (width, hidden), f"{last}.bias": (width,),
        }  # fmt: skip
        shapes |= {f"blocks.{block}.{name}": shape for name, shape in own.items()}
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("size", "count"),  # timm's, without the head; base with the normalisation within its perceptrons
    [("tiny", 5_525_184), ("small", 21_667_200), ("base", 85_850_880)],
)
def test_it_has_the_published_number_of_weights(size, count):
    plugin = ROWS[size]
    pixels = keras.Input((*plugin.image_size, 3))
    model = keras.Model(pixels, plugin.build(plugin.scale(pixels), None))
    width = model.output.shape[-1]
    assert model.count_params() == count - width  # the class token's position is added to the class token
    assert model.get_layer(plugin.cam_layer).output.shape == (None, 14, 14, width)
    names = [layer.name for layer in model.layers]
    start = names.index(plugin.finetune_from)
    assert not any(name.startswith(("blocks_10", "blocks_11", "fc_norm")) for name in names[:start])


@pytest.mark.parametrize("size", [(12, 12), (20, 8)])
def test_a_patch_is_turned_by_its_row_and_its_column(size):
    """The product of a query and a key depends on how far apart their patches are, and not on where they are."""
    rows, columns = (side // 4 for side in size)
    pixels = keras.Input((*size, 3))
    patches = keras.layers.Conv2D(16, 4, 4)(pixels)
    cosine, sine = eva.rotation(patches, (rows, columns), 16)
    found = [np.asarray(part[0, :, 0]) for part in keras.Model(pixels, [cosine, sine])(np.zeros((1, *size, 3)))]
    draw = np.random.default_rng(0)
    query, key = (np.tile(draw.normal(size=16), (1, 1 + rows * columns, 1, 1)).astype(np.float32) for _ in range(2))
    turns = [part[None, :, None] for part in found]
    queries, keys = (np.asarray(eva.turn(keras.ops.convert_to_tensor(x), turns))[0, :, 0] for x in (query, key))
    np.testing.assert_array_equal(queries[0], query[0, 0, 0])  # the class token has no place
    products = (queries[1:] @ keys[1:].T).reshape(rows, columns, rows, columns)
    np.testing.assert_allclose(products[0, 0, 1, 0], products[-2, 1, -1, 1], rtol=1e-4)
    np.testing.assert_allclose(products[0, 0, 0, 1], products[2, 0, 2, 1], rtol=1e-4)
    assert abs(products[0, 0, 1, 0] - products[0, 0, 0, 1]) > 1e-3
    # A grid of other size spans the same angles.
    np.testing.assert_allclose(found[0][columns * (rows - 1), 0], np.cos(14 * (rows - 1) / rows), atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_weights_are_taken_under_either_name(fused, tmp_path):
    tensors = published(fused=fused)
    save_file(tensors, tmp_path / "model.safetensors")
    model = backbone(TINY, (12, 12))
    load_weights(model, tmp_path / "model.safetensors", convert=eva.convert)
    second = "blocks.1.attn.qkv.weight" if fused else "blocks.1.attn.k_proj.weight"
    key = tensors[second][16:32] if fused else tensors[second]
    np.testing.assert_array_equal(model.get_layer("blocks_1_attn_k_proj").kernel, key.T)
    gate = tensors["blocks.0.mlp.fc1.bias"][:42] if fused else tensors["blocks.0.mlp.w1.bias"]
    np.testing.assert_array_equal(model.get_layer("blocks_0_mlp_fc1_g").bias, gate)
    np.testing.assert_array_equal(model.get_layer("blocks_0_attn_v_proj").bias, tensors["blocks.0.attn.v_bias"])
    np.testing.assert_array_equal(model.get_layer("fc_norm").gamma, tensors["norm.weight"])
    np.testing.assert_array_equal(model.get_layer("pos_embed").kernel[0], tensors["pos_embed"][0, 1:].reshape(3, 3, 16))


def test_a_step_trains_every_weight_and_half_precision_gives_the_same_features(tmp_path):
    network = eva.Transformer(width=16, heads=2, depth=2, patch=4, norm=True)
    model = backbone(network, (8, 12))
    start = {variable.path: np.asarray(variable) for variable in model.weights}
    model.compile(keras.optimizers.SGD(1.0), "mse")
    draw = np.random.default_rng(0)
    model.train_on_batch(draw.uniform(0, 255, (4, 8, 12, 3)), draw.normal(size=(4, 16)))
    assert [variable.path for variable in model.weights if (np.asarray(variable) == start[variable.path]).all()] == []
    model.save(tmp_path / "model.keras")
    images = draw.uniform(0, 255, (2, 8, 12, 3)).astype(np.float32)
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(images), model(images))

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = backbone(network, (8, 12))
    finally:
        keras.config.set_dtype_policy(before)
    half.set_weights(model.get_weights())
    np.testing.assert_allclose(half(images), model(images), atol=0.02)


def test_attention_rollout_reads_the_mean_of_the_patches():
    plugin = dataclasses.replace(
        eva.eva_x_tiny, build=partial(eva.build, network=TINY), image_size=(12, 8), minimum_size=(8, 8), size_multiple=4
    )
    model = build(plugin, 2, (12, 8)).model
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 8, 1)).astype(np.uint8)
    attentions = [one for one in model.operations if type(one).__name__ == "DotProductAttention"]
    pairs = [one._inbound_nodes[-1].input_tensors[:2] for one in attentions]
    rollout = np.eye(7)
    for query, key in keras.Model(model.inputs[0], pairs)(pixels.astype("float32")):
        scores = np.exp(np.einsum("bthc,bshc->bhts", query, key) / 8**0.5)
        weights = (scores / scores.sum(axis=-1, keepdims=True)).mean(axis=1)
        rollout = (weights + np.eye(7)) / 2 @ rollout
    expected = enlarged(rollout[:, 1:, 1:].mean(axis=1).reshape(2, 3, 2).astype(np.float32), (12, 8))
    maps = raw_maps("attention-rollout", model, "patch_map", pixels, np.array([0, 1]))
    np.testing.assert_allclose(maps, expected, atol=1e-5)
