"""SqueezeNet 1.1 for chestxray: AlexNet's accuracy on ImageNet with a fiftieth of its weights."""

from typing import Any

import keras

from chestxray.plugin import ModelPlugin


def scale(pixels: Any) -> Any:
    """Return `pixels`, (batch, height, width, 3) in 0..255, as numbers in -1..1."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)


def build(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/16, width/16, 512)."""
    x = keras.layers.Conv2D(64, 3, 2, activation="relu", name="conv1")(scaled)
    x = keras.layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = apply_fire(apply_fire(x, 16, 64, "fire2"), 16, 64, "fire3")
    x = keras.layers.MaxPooling2D(3, 2, name="pool3")(x)
    x = apply_fire(apply_fire(x, 32, 128, "fire4"), 32, 128, "fire5")
    x = keras.layers.MaxPooling2D(3, 2, name="pool5")(x)
    x = apply_fire(apply_fire(x, 48, 192, "fire6"), 48, 192, "fire7")
    return apply_fire(apply_fire(x, 64, 256, "fire8"), 64, 256, "fire9")


def apply_fire(x: Any, squeeze: int, expand: int, name: str) -> Any:
    """Squeeze the channels with 1x1 filters, expand them with 1x1 and 3x3 ones side by side."""
    x = apply_convolution(x, squeeze, 1, f"{name}_squeeze")
    sides = [apply_convolution(x, expand, n, f"{name}_expand{n}x{n}") for n in (1, 3)]
    return keras.layers.Concatenate(name=name)(sides)


def apply_convolution(x: Any, filters: int, size: int, name: str) -> Any:
    """A convolution and a ReLU, with the initial weights that suit it (He et al. 2015)."""
    return keras.layers.Conv2D(
        filters,
        size,
        padding="same",
        activation="relu",
        kernel_initializer="he_uniform",
        name=name,
    )(x)


def head(features: Any, classes: int) -> Any:
    """The paper's head: no dense layer, but a map for each class, averaged."""
    x = keras.layers.Dropout(0.5, name="dropout9")(features)
    x = keras.layers.Conv2D(classes, 1, activation="relu", dtype="float32", name="conv10")(x)
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="logits")(x)


plugin = ModelPlugin(
    build=build,
    scale=scale,
    head=head,
    image_size=(224, 224),
    minimum_size=(32, 32),
    cam_layer="fire9",
    finetune_from="fire8_squeeze",
    reference="Iandola et al., SqueezeNet, 2016, arXiv:1602.07360 (version 1.1)",
    licence="MIT",
)
