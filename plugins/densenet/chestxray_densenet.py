"""DenseNet-121, the network of CheXNet, DenseNet-169 and DenseNet-201 for chestxray."""

from functools import partial
from typing import Any

import keras

from chestxray.plugin import ModelPlugin

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def scale(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3), standardised by ImageNet's mean and standard deviation."""
    factors = [1 / (255 * deviation) for deviation in DEVIATION]
    offsets = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
    return keras.layers.Rescaling(factors, offset=offsets)(pixels)


def build(scaled: Any, weights: str | None, network: str) -> Any:
    """Return the features (batch, height/32, width/32, channels) of keras.applications' `network`."""
    return getattr(keras.applications, network)(input_tensor=scaled, include_top=False, weights=weights).output


def plugin(network: str) -> ModelPlugin:
    """Return the plugin of the `network` of that name in keras.applications."""
    return ModelPlugin(
        build=partial(build, network=network),
        scale=scale,
        image_size=(224, 224),
        cam_layer="relu",
        finetune_from="conv5_block1_0_bn",  # the last dense block
        weights=("imagenet",),
        reference="Huang et al., Densely Connected Convolutional Networks, CVPR 2017, arXiv:1608.06993; "
        "on radiographs: Rajpurkar et al., CheXNet, arXiv:1711.05225",
        licence="Apache-2.0",
        weights_licence="BSD-3-Clause (torchvision; keras.applications), trained on ImageNet",
    )


densenet121 = plugin("DenseNet121")
densenet169 = plugin("DenseNet169")
densenet201 = plugin("DenseNet201")
