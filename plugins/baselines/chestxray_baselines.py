"""Small networks trained from scratch, as baselines for large pretrained ones.

All four take grey images. None has pretrained weights. A fully connected network has no feature map that
Grad-CAM could use, and works only at the image size it was built for.
"""

from typing import Any

import keras

from chestxray.plugin import ModelPlugin

NO_MAP = "a fully connected network has no convolutional feature map"
REFERENCE = "LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 1998"
DEEP_REFERENCE = (
    "Simonyan and Zisserman, arXiv:1409.1556 (the blocks); Ioffe and Szegedy, arXiv:1502.03167 (batch normalisation)"
)


def scale(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 1) in 0..1."""
    return keras.layers.Rescaling(1 / 255)(pixels)


def thumbnail(scaled: Any) -> Any:
    """Return the image averaged down to about 64x64 and flattened, to keep the first layer small."""
    height, width = scaled.shape[1:3]
    window = (max(1, height // 64), max(1, width // 64))
    return keras.layers.Flatten(name="flatten")(keras.layers.AveragePooling2D(window, name="thumbnail")(scaled))


def shallow_fc(scaled: Any, weights: str | None) -> Any:
    """Build one hidden layer; return the features (batch, 256)."""
    return keras.layers.Dense(256, activation="relu", name="hidden")(thumbnail(scaled))


def deep_fc(scaled: Any, weights: str | None) -> Any:
    """Build four hidden layers with dropout between them; return the features (batch, 64)."""
    x = thumbnail(scaled)
    for number, units in enumerate((512, 256, 128), start=1):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden{number}")(x)
        x = keras.layers.Dropout(0.3, name=f"hidden{number}_dropout")(x)
    return keras.layers.Dense(64, activation="relu", name="hidden4")(x)


def shallow_cnn(scaled: Any, weights: str | None) -> Any:
    """Build two convolutions; return the features (batch, height/4, width/4, 64)."""
    x = keras.layers.Conv2D(32, 5, strides=2, padding="same", activation="relu", name="conv1")(scaled)
    x = keras.layers.MaxPooling2D(2, name="pool1")(x)
    return keras.layers.Conv2D(64, 3, padding="same", activation="relu", name="conv2")(x)


def flat_head(features: Any, classes: int) -> Any:
    """Return the logits of one hidden layer without global pooling, so that the position of features is used."""
    x = keras.layers.MaxPooling2D(2, name="pool2")(features)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(128, activation="relu", name="hidden")(x)
    x = keras.layers.Dropout(0.3, name="dropout")(x)
    return keras.layers.Dense(classes, dtype="float32", name="logits")(x)


def deep_cnn(scaled: Any, weights: str | None) -> Any:
    """Build five blocks of two convolutions; return the features (batch, height/16, width/16, 256)."""
    x = scaled
    for block, filters in enumerate((32, 64, 128, 256, 256), start=1):
        if block > 1:
            x = keras.layers.MaxPooling2D(2, name=f"pool{block - 1}")(x)
        for part in (1, 2):
            x = apply_convolution(x, filters, f"block{block}_{part}")
    return x


def apply_convolution(x: Any, filters: int, name: str) -> Any:
    """Apply a 3x3 convolution, batch normalisation and ReLU."""
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    # With Keras's default of .99 the moving averages are still near their start after a few short epochs, and
    # the network then performs much worse in evaluation than in training.
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)


shallow_fc_plugin = ModelPlugin(
    build=shallow_fc,
    scale=scale,
    image_size=(128, 128),
    minimum_size=(16, 16),
    channels=1,
    cam_reason=NO_MAP,
    reference=REFERENCE,
    licence="Apache-2.0",
)
deep_fc_plugin = ModelPlugin(
    build=deep_fc,
    scale=scale,
    image_size=(128, 128),
    minimum_size=(16, 16),
    channels=1,
    cam_reason=NO_MAP,
    reference=REFERENCE,
    licence="Apache-2.0",
)
shallow_cnn_plugin = ModelPlugin(
    build=shallow_cnn,
    scale=scale,
    image_size=(128, 128),
    minimum_size=(16, 16),
    channels=1,
    cam_layer="conv2",
    head=flat_head,
    reference=REFERENCE,
    licence="Apache-2.0",
)
deep_cnn_plugin = ModelPlugin(
    build=deep_cnn,
    scale=scale,
    image_size=(128, 128),
    minimum_size=(16, 16),
    channels=1,
    cam_layer="block5_2_relu",
    reference=DEEP_REFERENCE,
    licence="Apache-2.0",
)
