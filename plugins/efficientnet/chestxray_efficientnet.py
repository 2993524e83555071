"""EfficientNetV2-B0 and EfficientNetV2-S for chestxray."""

from typing import Any

import keras

from chestxray.plugin import ModelPlugin

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
REFERENCE = "Tan and Le, EfficientNetV2, ICML 2021, arXiv:2104.00298"
WEIGHTS_LICENCE = "Apache-2.0 (Google; keras.applications), trained on ImageNet"


def scale_b0(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3), standardised by ImageNet's mean and standard deviation."""
    factors = [1 / (255 * deviation) for deviation in DEVIATION]
    offsets = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
    return keras.layers.Rescaling(factors, offset=offsets)(pixels)


def scale_s(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3) in -1..1."""
    return keras.layers.Rescaling(1 / 128, offset=-1.0)(pixels)


def build_b0(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 1280)."""
    return keras.applications.EfficientNetV2B0(
        input_tensor=scaled, include_top=False, include_preprocessing=False, weights=weights
    ).output


def build_s(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 1280)."""
    return keras.applications.EfficientNetV2S(
        input_tensor=scaled, include_top=False, include_preprocessing=False, weights=weights
    ).output


efficientnetv2b0 = ModelPlugin(
    build=build_b0,
    scale=scale_b0,
    image_size=(224, 224),
    cam_layer="top_activation",
    finetune_from="block6a_expand_conv",  # the first block at a 32nd of the size
    weights=("imagenet",),
    reference=REFERENCE,
    licence="Apache-2.0",
    weights_licence=WEIGHTS_LICENCE,
)
efficientnetv2s = ModelPlugin(
    build=build_s,
    scale=scale_s,
    image_size=(384, 384),
    cam_layer="top_activation",
    finetune_from="block6a_expand_conv",  # the first block at a 32nd of the size
    weights=("imagenet",),
    reference=REFERENCE,
    licence="Apache-2.0",
    weights_licence=WEIGHTS_LICENCE,
)
