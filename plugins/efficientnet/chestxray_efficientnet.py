"""EfficientNetV2-B0, -S and -M for chestxray."""

from functools import partial
from typing import Any

import keras

from chestxray.plugin import ModelPlugin

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def scale_b0(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3), standardised by ImageNet's mean and standard deviation."""
    factors = [1 / (255 * deviation) for deviation in DEVIATION]
    offsets = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
    return keras.layers.Rescaling(factors, offset=offsets)(pixels)


def scale_s(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3) in -1..1."""
    return keras.layers.Rescaling(1 / 128, offset=-1.0)(pixels)


def build(scaled: Any, weights: str | None, network: str) -> Any:
    """Return the features (batch, height/32, width/32, 1280) of the `network` of that name in keras.applications."""
    return getattr(keras.applications, network)(
        input_tensor=scaled, include_top=False, include_preprocessing=False, weights=weights
    ).output


def plugin(network: str, scale: Any, side: int) -> ModelPlugin:
    """Return the plugin of the `network` of that name in keras.applications, published for `side` x `side` pixels."""
    return ModelPlugin(
        build=partial(build, network=network),
        scale=scale,
        image_size=(side, side),
        cam_layer="top_activation",
        finetune_from="block6a_expand_conv",  # the first block at a 32nd of the size
        weights=("imagenet",),
        reference="Tan and Le, EfficientNetV2, ICML 2021, arXiv:2104.00298",
        licence="Apache-2.0",
        weights_licence="Apache-2.0 (Google; keras.applications), trained on ImageNet",
    )


efficientnetv2b0 = plugin("EfficientNetV2B0", scale_b0, 224)
efficientnetv2s = plugin("EfficientNetV2S", scale_s, 384)
efficientnetv2m = plugin("EfficientNetV2M", scale_s, 480)
