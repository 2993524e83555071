"""EVA-X for chestxray: the vision transformer of EVA-02 (Fang et al., arXiv:2303.11331), trained on chest radiographs.

Beside a ViT it has rotary positions (Su et al., arXiv:2104.09864), a gated perceptron (SwiGLU) and keys without bias,
and its feature is the mean of the patches. Layers have their names in timm, with underscores for dots.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from chestxray_vit import add, apply_dense, apply_norm, initializer, interpolate

from chestxray.plugin import ModelPlugin, PublishedWeights, table

MEAN, DEVIATION = 0.49185243, 0.28509309
#: Patches on a side when it was trained; rotary positions are fractions of it.
SIDE = 14


@dataclass(frozen=True)
class Transformer:
    """A network of the family. ``norm``: whether the perceptron normalises what it has gated."""

    width: int
    heads: int
    depth: int = 12
    patch: int = 16
    norm: bool = False


def scale(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3), standardised by the mean and deviation of EVA-X's radiographs."""
    return keras.layers.Rescaling(1 / (255 * DEVIATION), offset=-MEAN / DEVIATION)(pixels)


def build(scaled: Any, weights: str | None, network: Transformer) -> Any:
    """Return the normalised mean of the patches (batch, width) after the last block."""
    if weights:
        raise ValueError(f"chestxray loads the weights of EVA-X itself. Received: {weights!r}.")
    x = keras.layers.Conv2D(
        network.width, network.patch, network.patch, kernel_initializer=initializer(), name="patch_embed_proj"
    )(scaled)
    rows, columns = x.shape[1:3]
    turns = rotation(x, (rows, columns), network.width // network.heads)
    x = keras.layers.Add(name="patches")([x, table(x, (rows, columns, network.width), name="pos_embed")])
    tokens = table(x, (1, network.width), name="tokens")
    x = keras.layers.Reshape((rows * columns, network.width))(x)
    x = keras.layers.Concatenate(axis=1, name="sequence")([tokens, x])
    for block in range(network.depth):
        x = apply_block(x, turns, network, f"blocks_{block}")
    x = keras.layers.Reshape((rows, columns, network.width), name="patch_map")(x[:, 1:])
    return apply_norm(keras.layers.GlobalAveragePooling2D(name="mean")(x), "fc_norm")


def rotation(x: Any, grid: tuple[int, int], channels: int) -> tuple[Any, Any]:
    """Return cosine and sine, each (batch, patches, 1, channels / 2), by which a patch turns the pairs of channels of a
    head: the first half of the pairs by its row, the second by its column, in `channels` / 4 frequencies.

    They are computed in float32 from `x`, of which nothing is left, since an array would be written into each model.
    """
    frequencies = 10000.0 ** (-np.arange(channels // 4) / (channels // 4))
    places = np.stack(np.meshgrid(*(np.arange(n) / n * SIDE for n in grid), indexing="ij"), axis=-1)
    angles = (places[..., None] * frequencies).reshape(*grid, channels // 2)
    still = keras.layers.Rescaling(0.0, dtype="float32", name="no_angle")(x[..., : channels // 2])
    turned = keras.layers.Rescaling(1.0, offset=angles.tolist(), dtype="float32", name="angles")(still)
    turned = keras.layers.Reshape((grid[0] * grid[1], 1, channels // 2), dtype="float32")(turned)
    return keras.ops.cos(turned), keras.ops.sin(turned)


def apply_block(x: Any, turns: tuple[Any, Any], network: Transformer, name: str) -> Any:
    """Apply self-attention and a gated perceptron, each to the normalised input and added to it."""
    y = apply_attention(apply_norm(x, f"{name}_norm1"), turns, network.heads, f"{name}_attn")
    x = add(x, y, layer_scale=False, name="")
    y = apply_norm(x, f"{name}_norm2")
    hidden = network.width * 8 // 3
    gate = keras.layers.Activation("silu", name=f"{name}_mlp_act")(apply_dense(y, hidden, f"{name}_mlp_fc1_g"))
    y = keras.layers.Multiply()([gate, apply_dense(y, hidden, f"{name}_mlp_fc1_x")])
    if network.norm:
        y = apply_norm(y, f"{name}_mlp_norm")
    return add(x, apply_dense(y, network.width, f"{name}_mlp_fc2"), layer_scale=False, name="")


def apply_attention(x: Any, turns: tuple[Any, Any], heads: int, name: str) -> Any:
    """Apply self-attention of several heads to `x` (batch, 1 + patches, width), queries and keys turned by place."""
    tokens, width = x.shape[1:]
    query, key, value = (
        keras.layers.Reshape((tokens, heads, width // heads))(
            keras.layers.Dense(
                width, use_bias=part != "k", kernel_initializer=initializer(), name=f"{name}_{part}_proj"
            )(x)
        )
        for part in "qkv"
    )
    x = keras.ops.dot_product_attention(turn(query, turns), turn(key, turns), value)
    return apply_dense(keras.layers.Reshape((tokens, width))(x), width, f"{name}_proj")


def turn(x: Any, turns: tuple[Any, Any]) -> Any:
    """Return `x` (batch, 1 + patches, heads, channels) with each patch's pairs of neighbouring channels turned."""
    cosine, sine = turns
    patches = keras.ops.cast(x[:, 1:], "float32")
    first, second = patches[..., ::2], patches[..., 1::2]
    turned = keras.ops.stack([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    turned = keras.layers.Reshape(patches.shape[1:], dtype="float32")(turned)
    return keras.layers.Concatenate(axis=1)([x[:, :1], keras.ops.cast(turned, x.dtype)])


#: What the files of EVA-X call a part of the perceptron, and what timm calls it.
RENAMED = (("mlp.ffn_ln", "mlp.norm"), ("mlp.w12", "mlp.fc1"), ("mlp.w1", "mlp.fc1_g"), ("mlp.w2", "mlp.fc1_x"))


def convert(tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Convert weights under timm's names, or those of EVA-02's files, to Keras's names and shapes.

    Positions are interpolated to the grid of ``shapes["pos_embed/kernel"]``, (1, rows, columns, width), as timm does.
    The last normalisation of files of masked image modelling, ``norm``, is taken for that of the mean.
    """
    width = tensors["cls_token"].shape[-1]
    positions = tensors["pos_embed"].reshape(-1, width)
    side = int((len(positions) - 1) ** 0.5)
    patches = positions[1:].reshape(side, side, width)
    arrays = {
        "tokens/kernel": tensors["cls_token"].reshape(1, 1, width) + positions[:1],
        "pos_embed/kernel": interpolate(patches, shapes["pos_embed/kernel"][1:3], antialias=True)[None],
    }
    for name, tensor in split(tensors).items():
        module, _, variable = name.rpartition(".")
        layer = {"head": "logits", "norm": "fc_norm"}.get(module, module.replace(".", "_"))
        if not module or variable not in ("weight", "bias") or module.startswith(("lm_head", "rope")):
            continue  # the tokens, which are done, and what belongs to the training
        if "norm" in module.rpartition(".")[2]:
            arrays[f"{layer}/{'gamma' if variable == 'weight' else 'beta'}"] = tensor
        elif variable == "bias":
            arrays[f"{layer}/bias"] = tensor
        else:
            arrays[f"{layer}/kernel"] = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
    return arrays


def split(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return `tensors` under timm's names; query, key and value, gate and gated are each a tensor of its own."""
    found = {}
    for name, tensor in tensors.items():
        for old, new in RENAMED:
            name = name.replace(old, new)
        name = name.replace("mlp.w3", "mlp.fc2").replace("attn.q_bias", "attn.q_proj.bias")
        name = name.replace("attn.v_bias", "attn.v_proj.bias")
        if name.endswith("attn.qkv.weight"):
            parts = zip("qkv", np.split(tensor, 3), strict=True)
            found |= {name.replace("qkv", f"{part}_proj"): array for part, array in parts}
        elif ".mlp.fc1." in name:
            parts = zip("gx", np.split(tensor, 2), strict=True)
            found |= {name.replace("fc1", f"fc1_{part}"): array for part, array in parts}
        else:
            found[name] = tensor
    return found


def plugin(network: Transformer, size: str) -> ModelPlugin:
    """Return the plugin of the `network` of one of the published sizes."""
    return ModelPlugin(
        build=partial(build, network=network),
        scale=scale,
        image_size=(224, 224),
        minimum_size=(2 * network.patch, 2 * network.patch),
        size_multiple=network.patch,
        cam_layer="patch_map",
        finetune_from=f"blocks_{network.depth - 2}_norm1",
        weights=("merged520k",),
        published={
            "merged520k": PublishedWeights(
                url=f"https://huggingface.co/MapleF/eva_x/resolve/main/eva_x_{size}_patch16_merged520k_mim.pt",
                trained_on=("nih", "chexpert", "mimic-cxr"),
            )
        },
        convert=convert,
        reference="Yao et al., EVA-X: a foundation model for general chest x-ray analysis with self-supervised "
        "learning, npj Digital Medicine 2025, arXiv:2405.05237",
        licence="Apache-2.0",
        weights_licence="MIT (hustvl/EVA-X)",
    )


eva_x_tiny = plugin(Transformer(width=192, heads=3), "tiny")
eva_x_small = plugin(Transformer(width=384, heads=6), "small")
eva_x_base = plugin(Transformer(width=768, heads=12, norm=True), "base")
