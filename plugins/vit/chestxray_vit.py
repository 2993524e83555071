"""Vision transformers for chestxray: ViT as published by timm, DINOv2, and two DINOv2 trained on chest radiographs.

One flat graph of ordinary Keras layers. Layers have their names in timm, with underscores for dots; the class token
has its own position added to it, and stands with the register tokens in one table, ``tokens``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from chestxray.plugin import ModelPlugin, load_huggingface, table

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DINOV2 = "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024, arXiv:2304.07193"


@dataclass(frozen=True)
class Transformer:
    """A network of the family, and how its input is standardised.

    - ``patch``: side of a patch in pixels; ``width``: channels of a token; ``depth``: blocks.
    - ``registers``: tokens beside the class token that stand for no place (Darcet et al., arXiv:2309.16588).
    - ``layer_scale``: whether each branch is multiplied by a learned factor per channel.
    - ``swiglu``: whether the multilayer perceptron is gated (Shazeer, arXiv:2002.05202), as in DINOv2's giant.
    - ``antialias``: how published positions are made smaller. True: as timm does; False: as Hugging Face's
      transformers and DINOv2 do.
    - ``statistics``: mean and standard deviation of the channels of images in 0..1.
    """

    width: int
    heads: int
    depth: int = 12
    patch: int = 16
    registers: int = 0
    layer_scale: bool = False
    swiglu: bool = False
    antialias: bool = True
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = HALF


def scale(pixels: Any, network: Transformer) -> Any:
    """Return `pixels` (batch, height, width, 3), standardised by the network's statistics."""
    factors = [1 / (255 * deviation) for deviation in network.statistics[1]]
    offsets = [-mean / deviation for mean, deviation in zip(*network.statistics, strict=True)]
    return keras.layers.Rescaling(factors, offset=offsets)(pixels)


def build(scaled: Any, weights: str | None, network: Transformer, repository: str) -> Any:
    """Return the class token (batch, width) after the last block and its normalisation."""
    x = keras.layers.Conv2D(
        network.width, network.patch, network.patch, kernel_initializer=initializer(), name="patch_embed_proj"
    )(scaled)
    rows, columns = x.shape[1:3]
    positions = table(x, (rows, columns, network.width), name="pos_embed")
    x = keras.layers.Add(name="patches")([x, positions])
    tokens = table(x, (1 + network.registers, network.width), name="tokens")
    x = keras.layers.Reshape((rows * columns, network.width))(x)
    x = keras.layers.Concatenate(axis=1, name="sequence")([tokens, x])
    for block in range(network.depth):
        last = block == network.depth - 1
        x = apply_block(x, network, f"blocks_{block}", (rows, columns) if last else None)
    x = apply_norm(x[:, 0], "norm")
    if weights:
        load_huggingface(scaled, x, repository, convert=partial(convert, antialias=network.antialias))
    return x


def apply_block(x: Any, network: Transformer, name: str, grid: tuple[int, int] | None) -> Any:
    """Apply self-attention and a multilayer perceptron, each to the normalised input and added to it.

    With `grid` the patch tokens pass a layer ``patch_map`` of rank 4 on their way into the attention.
    """
    y = apply_norm(x, f"{name}_norm1")
    if grid:
        y = through_map(y, network, grid)
    y = apply_attention(y, network.heads, f"{name}_attn")
    x = add(x, y, network.layer_scale, f"{name}_ls1")
    y = apply_norm(x, f"{name}_norm2")
    y = apply_perceptron(y, 4 * network.width, network.swiglu, f"{name}_mlp")
    return add(x, y, network.layer_scale, f"{name}_ls2")


def through_map(x: Any, network: Transformer, grid: tuple[int, int]) -> Any:
    """Return `x` (batch, tokens, width) as it is, its patches having been a map (batch, rows, columns, width)."""
    others = 1 + network.registers
    patches = keras.layers.Reshape((*grid, network.width), name="patch_map")(x[:, others:])
    patches = keras.layers.Reshape((grid[0] * grid[1], network.width))(patches)
    return keras.layers.Concatenate(axis=1)([x[:, :others], patches])


def apply_attention(x: Any, heads: int, name: str) -> Any:
    """Apply self-attention of several heads to `x` (batch, tokens, width)."""
    tokens, width = x.shape[1:]
    x = apply_dense(x, 3 * width, f"{name}_qkv")
    x = keras.layers.Reshape((tokens, 3, heads, width // heads))(x)
    x = keras.ops.dot_product_attention(x[:, :, 0], x[:, :, 1], x[:, :, 2])
    return apply_dense(keras.layers.Reshape((tokens, width))(x), width, f"{name}_proj")


def apply_perceptron(x: Any, hidden: int, swiglu: bool, name: str) -> Any:
    """Apply a dense layer of `hidden` units with GELU, or of two thirds of them with SwiGLU, and one back."""
    width = x.shape[-1]
    if not swiglu:
        x = keras.layers.Activation("gelu", name=f"{name}_act")(apply_dense(x, hidden, f"{name}_fc1"))
        return apply_dense(x, width, f"{name}_fc2")
    hidden = (hidden * 2 // 3 + 7) // 8 * 8  # DINOv2 rounds it up to a multiple of eight
    x = apply_dense(x, 2 * hidden, f"{name}_w12")
    gate = keras.layers.Activation("silu", name=f"{name}_act")(x[..., :hidden])
    return apply_dense(keras.layers.Multiply()([gate, x[..., hidden:]]), width, f"{name}_w3")


def apply_dense(x: Any, units: int, name: str) -> Any:
    """Apply a dense layer."""
    return keras.layers.Dense(units, kernel_initializer=initializer(), name=name)(x)


def apply_norm(x: Any, name: str) -> Any:
    """Apply layer normalisation over the channels."""
    return keras.layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def add(x: Any, y: Any, layer_scale: bool, name: str) -> Any:
    """Return `x` plus `y`, which has been multiplied by a learned factor per channel with `layer_scale`."""
    if layer_scale:
        y = keras.layers.Multiply()([y, table(y, (1, y.shape[-1]), initializer="ones", name=name)])
    return keras.layers.Add()([x, y])


def initializer() -> Any:
    """Return the initializer of the weights, as published."""
    return keras.initializers.TruncatedNormal(stddev=0.02)


def convert(
    tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, antialias: bool = True
) -> dict[str, Any]:
    """Convert weights under timm's names, or under those of transformers' Dinov2Model, to Keras's names and shapes.

    Positions are interpolated to the grid of ``shapes["pos_embed/kernel"]``, (1, rows, columns, width).
    """
    if "embeddings.cls_token" in tensors:
        tensors = timm_names(tensors)
    width = tensors["cls_token"].shape[-1]
    tokens = tensors["cls_token"].reshape(1, width)
    positions = tensors["pos_embed"].reshape(-1, width)
    side = int(len(positions) ** 0.5)
    if side * side != len(positions):  # the class token has one as well
        tokens, positions = tokens + positions[:1], positions[1:]
    if "reg_token" in tensors:
        tokens = np.concatenate([tokens, tensors["reg_token"].reshape(-1, width)])
    side = int(len(positions) ** 0.5)
    grid = shapes["pos_embed/kernel"][1:3]
    arrays = {
        "tokens/kernel": tokens[None],
        "pos_embed/kernel": interpolate(positions.reshape(side, side, width), grid, antialias=antialias)[None],
    }
    for name, tensor in tensors.items():
        module, _, variable = name.rpartition(".")
        layer = "logits" if module == "head" else module.replace(".", "_")
        if variable == "gamma":
            arrays[f"{layer}/kernel"] = tensor.reshape(1, 1, width)
        elif not module or variable not in ("weight", "bias"):
            continue  # the tokens, which are done, and a mask that belongs to the training
        elif "norm" in module.rpartition(".")[2]:
            arrays[f"{layer}/{'gamma' if variable == 'weight' else 'beta'}"] = tensor
        elif variable == "bias":
            arrays[f"{layer}/bias"] = tensor
        else:
            arrays[f"{layer}/kernel"] = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
    return arrays


#: What transformers calls a module of Dinov2Model, and what timm calls it.
RENAMED = (
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.cls_token", "cls_token"),
    ("encoder.layer.", "blocks."),
    ("attention.output.dense", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("mlp.weights_in", "mlp.w12"),
    ("mlp.weights_out", "mlp.w3"),
    ("layernorm", "norm"),
)


def timm_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights of transformers' Dinov2Model under timm's names, query, key and value in one."""
    renamed = {}
    for name, tensor in tensors.items():
        if ".attention.attention.key." in name or ".attention.attention.value." in name:
            continue
        if ".attention.attention.query." in name:
            parts = [tensors[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            name, tensor = name.replace("attention.attention.query", "attn.qkv"), np.concatenate(parts)
        for old, new in RENAMED:
            name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


def interpolate(positions: Any, grid: tuple[int, ...], *, antialias: bool) -> Any:
    """Return `positions` (rows, columns, width), bicubically interpolated to `grid`, (rows, columns).

    As torch.nn.functional.interpolate without aligned corners: Keys's kernel with a = -0.75 and borders repeated;
    with `antialias` that of a = -0.5, widened where the grid becomes smaller, and cut at the borders.
    """
    down, across = (
        resampling(old, new, antialias=antialias) for old, new in zip(positions.shape[:2], grid, strict=True)
    )
    return np.einsum("ih,jw,hwc->ijc", down, across, positions, optimize=True).astype(positions.dtype)


def resampling(old: int, new: int, *, antialias: bool) -> Any:
    """Return the matrix (new, old) that interpolates `old` values bicubically to `new` places."""
    step = old / new
    wide = max(step, 1) if antialias else 1
    centres = (np.arange(new) + 0.5) * step - 0.5
    reach = int(np.ceil(2 * wide)) + 1
    matrix = np.zeros((new, old))
    for row, centre in enumerate(centres):
        for place in range(int(centre) - reach, int(centre) + reach + 1):
            weight = cubic((place - centre) / wide, -0.5 if antialias else -0.75)
            if 0 <= place < old or not antialias:
                matrix[row, min(max(place, 0), old - 1)] += weight
    return matrix / matrix.sum(axis=1, keepdims=True)


def cubic(distance: float, a: float) -> float:
    """Return the weight of a value at `distance` in Keys's cubic convolution."""
    x = abs(distance)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return a * (((x - 5) * x + 8) * x - 4) if x < 2 else 0.0


def plugin(network: Transformer, repository: str, weights: str, **fields: Any) -> ModelPlugin:
    """Return the plugin of `network`, whose weights called `weights` are `repository` on the Hugging Face Hub."""
    return ModelPlugin(
        build=partial(build, network=network, repository=repository),
        scale=partial(scale, network=network),
        minimum_size=(2 * network.patch, 2 * network.patch),
        size_multiple=network.patch,
        cam_layer="patch_map",
        finetune_from=f"blocks_{network.depth - 2}_norm1",
        weights=(weights,),
        convert=partial(convert, antialias=network.antialias),
        licence="Apache-2.0",
        **fields,
    )


def imagenet(name: str, network: Transformer) -> ModelPlugin:
    """Return the plugin of a ViT of timm's, trained on ImageNet-21k and then on ImageNet."""
    repository = f"timm/vit_{name}_patch16_224.augreg_in21k_ft_in1k"
    return plugin(
        network,
        repository,
        "imagenet",
        image_size=(224, 224),
        reference="Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, arXiv:2010.11929; "
        "Steiner et al., How to Train Your ViT?, TMLR 2022, arXiv:2106.10270",
        weights_licence=f"Apache-2.0 ({repository}; Google), trained on ImageNet-21k",
    )


vit_tiny = imagenet("tiny", Transformer(width=192, heads=3))
vit_small = imagenet("small", Transformer(width=384, heads=6))
vit_base = imagenet("base", Transformer(width=768, heads=12))

dinov2_small = plugin(
    Transformer(width=384, heads=6, patch=14, registers=4, layer_scale=True, statistics=IMAGENET),
    "timm/vit_small_patch14_reg4_dinov2.lvd142m",
    "lvd142m",
    image_size=(518, 518),
    reference=f"{DINOV2}; Darcet et al., Vision Transformers Need Registers, ICLR 2024, arXiv:2309.16588",
    weights_licence="Apache-2.0 (timm/vit_small_patch14_reg4_dinov2.lvd142m; Meta)",
)

raddino = plugin(
    Transformer(
        width=768,
        heads=12,
        patch=14,
        layer_scale=True,
        antialias=False,
        statistics=((0.5307,) * 3, (0.2583,) * 3),
    ),
    "microsoft/rad-dino",
    "raddino",
    image_size=(518, 518),
    reference="Pérez-García et al., Exploring scalable medical image encoders beyond text supervision, "
    "Nature Machine Intelligence 2025, arXiv:2401.10815",
    weights_licence="MIT (microsoft/rad-dino; Microsoft, for research only)",
)

dinov2_xray = plugin(
    Transformer(width=768, heads=12, patch=14, layer_scale=True, antialias=False, statistics=IMAGENET),
    "StanfordAIMI/dinov2-base-xray-224",
    "xray",
    image_size=(224, 224),
    reference=f"Chen et al., CheXagent, arXiv:2401.12208; {DINOV2}",
    weights_licence="Apache-2.0 (StanfordAIMI/dinov2-base-xray-224)",
)
