"""Xception for chestxray."""

from typing import Any

import keras

from chestxray.plugin import ModelPlugin


def scale(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3) in -1..1."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)


def build(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 2048)."""
    return keras.applications.Xception(input_tensor=scaled, include_top=False, weights=weights).output


plugin = ModelPlugin(
    build=build,
    scale=scale,
    image_size=(299, 299),
    minimum_size=(71, 71),
    cam_layer="block14_sepconv2_act",
    finetune_from="block13_sepconv1_act",  # the exit flow
    weights=("imagenet",),
    reference="Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017, arXiv:1610.02357",
    licence="Apache-2.0",
    weights_licence="MIT (F. Chollet; keras.applications), trained on ImageNet",
)
