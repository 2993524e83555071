"""VGG16 for chestxray: with ImageNet's two fully connected layers of 4096 units, and with global pooling."""

from typing import Any

import keras

from chestxray.plugin import ModelPlugin

CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red
REFERENCE = "Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015, arXiv:1409.1556"
WEIGHTS_LICENCE = "CC-BY-4.0 (Visual Geometry Group, Oxford; keras.applications), trained on ImageNet"


def scale(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3) in the order blue, green, red, minus their ImageNet means."""
    swapped = keras.ops.take(pixels, [2, 1, 0], axis=-1)
    return keras.layers.Rescaling(1.0, offset=[-mean for mean in CAFFE_MEAN])(swapped)


def build(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, 4096) of the second fully connected layer."""
    return keras.applications.VGG16(input_tensor=scaled, weights=weights).get_layer("fc2").output


def build_pooled(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 512)."""
    return keras.applications.VGG16(input_tensor=scaled, include_top=False, weights=weights).output


def head(features: Any, classes: int) -> Any:
    """Return the logits behind a hidden layer of 256 units; only these are trained while the backbone is frozen."""
    hidden = keras.layers.Dense(256, activation="relu", name="fc3")(features)
    return keras.layers.Dense(classes, dtype="float32", name="logits")(hidden)


vgg16 = ModelPlugin(
    build=build,
    scale=scale,
    head=head,
    image_size=(224, 224),
    minimum_size=(224, 224),
    fixed_size=True,
    cam_layer="block5_conv3",
    finetune_from="fc1",
    weights=("imagenet",),
    reference=REFERENCE,
    licence="Apache-2.0",
    weights_licence=WEIGHTS_LICENCE,
)
vgg16_gap = ModelPlugin(
    build=build_pooled,
    scale=scale,
    image_size=(224, 224),
    cam_layer="block5_conv3",
    finetune_from="block5_conv1",
    weights=("imagenet",),
    reference=REFERENCE,
    licence="Apache-2.0",
    weights_licence=WEIGHTS_LICENCE,
)
