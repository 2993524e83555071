"""MobileNetV2 and MobileNetV3 for chestxray: small networks that are quick on a CPU."""

from typing import Any

import keras

from chestxray.plugin import ModelPlugin

V2_REFERENCE = "Sandler et al., MobileNetV2, CVPR 2018, arXiv:1801.04381"
V3_REFERENCE = "Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv:1905.02244"
WEIGHTS_LICENCE = "Apache-2.0 (Google; keras.applications), trained on ImageNet"


def scale(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3) in -1..1."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)


def build_v2(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 1280)."""
    return keras.applications.MobileNetV2(input_tensor=scaled, include_top=False, weights=weights).output


def build_v3small(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 576)."""
    network = keras.applications.MobileNetV3Small(
        input_tensor=scaled, include_top=False, include_preprocessing=False, weights=weights
    )
    return name_output(network)


def build_v3large(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 960)."""
    network = keras.applications.MobileNetV3Large(
        input_tensor=scaled, include_top=False, include_preprocessing=False, weights=weights
    )
    return name_output(network)


def name_output(network: Any) -> Any:
    """Return the output of `network` under a fixed name: Keras numbers the last activation anew in every model."""
    return keras.layers.Identity(name="features")(network.output)


mobilenetv2 = ModelPlugin(
    build=build_v2,
    scale=scale,
    image_size=(224, 224),
    cam_layer="out_relu",
    finetune_from="block_13_expand",  # the first block at a 32nd of the size
    weights=("imagenet",),
    reference=V2_REFERENCE,
    licence="Apache-2.0",
    weights_licence=WEIGHTS_LICENCE,
)
mobilenetv3small = ModelPlugin(
    build=build_v3small,
    scale=scale,
    image_size=(224, 224),
    cam_layer="features",
    finetune_from="expanded_conv_8_expand",  # the first block at a 32nd of the size
    weights=("imagenet",),
    reference=V3_REFERENCE,
    licence="Apache-2.0",
    weights_licence=WEIGHTS_LICENCE,
)
mobilenetv3large = ModelPlugin(
    build=build_v3large,
    scale=scale,
    image_size=(224, 224),
    cam_layer="features",
    finetune_from="expanded_conv_12_expand",  # the first block at a 32nd of the size
    weights=("imagenet",),
    reference=V3_REFERENCE,
    licence="Apache-2.0",
    weights_licence=WEIGHTS_LICENCE,
)
