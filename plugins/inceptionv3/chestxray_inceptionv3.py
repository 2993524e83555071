"""InceptionV3 for chestxray."""

from typing import Any

import keras

from chestxray.plugin import ModelPlugin


def scale(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3) in -1..1."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)


def build(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 2048)."""
    return keras.applications.InceptionV3(input_tensor=scaled, include_top=False, weights=weights).output


plugin = ModelPlugin(
    build=build,
    scale=scale,
    image_size=(299, 299),
    minimum_size=(75, 75),
    cam_layer="mixed10",
    finetune_from="mixed7",  # fine-tunes the last three inception blocks, which follow this layer
    weights=("imagenet",),
    reference="Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, arXiv:1512.00567",
    licence="Apache-2.0",
    weights_licence="Apache-2.0 (keras.applications), trained on ImageNet",
)
