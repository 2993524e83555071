"""ConvNeXt-Tiny for chestxray.

The graph of keras.applications has nested models and custom layers, which a saved model cannot resolve
when it is loaded elsewhere; here it is one flat graph of ordinary Keras layers. Layers have their names in
timm, with underscores for dots.
"""

from collections.abc import Mapping
from typing import Any

import keras

from chestxray.plugin import ModelPlugin, load_huggingface

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def scale(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3), standardised by ImageNet's mean and standard deviation."""
    factors = [1 / (255 * deviation) for deviation in DEVIATION]
    offsets = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
    return keras.layers.Rescaling(factors, offset=offsets)(pixels)


def build(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 768)."""
    x = apply_norm(apply_convolution(scaled, 96, 4, "stem_0"), "stem_1")
    for stage, (filters, blocks) in enumerate(((96, 3), (192, 3), (384, 9), (768, 3))):
        if stage > 0:
            x = apply_norm(x, f"stages_{stage}_downsample_0")
            x = apply_convolution(x, filters, 2, f"stages_{stage}_downsample_1")
        for block in range(blocks):
            x = apply_block(x, filters, f"stages_{stage}_blocks_{block}")
    x = apply_norm(x, "head_norm")
    if weights:
        load_huggingface(scaled, x, "timm/convnext_tiny.fb_in1k", convert=convert)
    return x


def apply_convolution(x: Any, filters: int, size: int, name: str) -> Any:
    """Apply a convolution over non-overlapping patches."""
    return keras.layers.Conv2D(filters, size, size, kernel_initializer=initializer(), name=name)(x)


def apply_norm(x: Any, name: str) -> Any:
    """Apply layer normalisation over the channels."""
    return keras.layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def apply_block(x: Any, filters: int, name: str) -> Any:
    """Apply a 7x7 depthwise convolution, a dense layer of four times the width, one back to it, and a learned scale."""
    depthwise = f"{name}_conv_dw"
    y = keras.layers.DepthwiseConv2D(7, padding="same", depthwise_initializer=initializer(), name=depthwise)(x)
    y = apply_norm(y, f"{name}_norm")
    y = keras.layers.Dense(4 * filters, kernel_initializer=initializer(), name=f"{name}_mlp_fc1")(y)
    y = keras.layers.Activation("gelu", name=f"{name}_mlp_act")(y)
    y = keras.layers.Dense(filters, kernel_initializer=initializer(), name=f"{name}_mlp_fc2")(y)
    y = keras.layers.EinsumDense(  # one factor per channel
        "bhwc,c->bhwc",
        output_shape=y.shape[1:],
        kernel_initializer=keras.initializers.Constant(1e-6),
        name=f"{name}_gamma",
    )(y)
    return keras.layers.Add(name=name)([x, y])


def initializer() -> Any:
    """Return the initializer of the weights, as published."""
    return keras.initializers.TruncatedNormal(stddev=0.02)


def convert(tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Convert timm's weights, such as ``stages.0.blocks.0.mlp.fc1.weight`` (out, in), to Keras's names and shapes."""
    arrays = {}
    for name, tensor in tensors.items():
        module, _, variable = name.rpartition(".")
        layer = "logits" if module == "head.fc" else module.replace(".", "_")
        if variable == "gamma":
            arrays[f"{layer}_gamma/kernel"] = tensor
        elif module.endswith("conv_dw") and variable == "weight":  # (channels, 1, height, width)
            arrays[f"{layer}/kernel"] = tensor.transpose(2, 3, 0, 1)
        elif tensor.ndim == 4:
            arrays[f"{layer}/kernel"] = tensor.transpose(2, 3, 1, 0)
        elif tensor.ndim == 2:
            arrays[f"{layer}/kernel"] = tensor.T
        elif f"{module}.weight" in tensors and tensors[f"{module}.weight"].ndim == 1:
            arrays[f"{layer}/{'gamma' if variable == 'weight' else 'beta'}"] = tensor
        else:
            arrays[f"{layer}/bias"] = tensor
    return arrays


plugin = ModelPlugin(
    build=build,
    scale=scale,
    image_size=(224, 224),
    cam_layer="head_norm",
    finetune_from="stages_3_downsample_0",
    weights=("imagenet",),
    convert=convert,
    reference="Liu et al., A ConvNet for the 2020s, CVPR 2022, arXiv:2201.03545",
    licence="Apache-2.0",
    weights_licence="Apache-2.0 (timm/convnext_tiny.fb_in1k; Meta), trained on ImageNet",
)
