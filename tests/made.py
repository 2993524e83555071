"""Things that tests make: an index without files, a tiny architecture."""

import keras

from chestxray.data.index import Index
from chestxray.plugin import ModelPlugin


def make_index(labels, patients=None, splits=None, hashes=None) -> Index:
    """An index of images that are not on disk, as if decoded."""
    n = len(labels)
    records = [
        {
            "path": f"/x/{i:05d}.png",
            "label": labels[i],
            "patient": patients[i] if patients is not None else "",
            "split": splits[i] if splits is not None else "",
            "pixel_hash": hashes[i] if hashes is not None else f"h{i}",
            "file_hash": hashes[i] if hashes is not None else f"h{i}",
            "unreadable": "",
        }
        for i in range(n)
    ]
    return Index.from_records(records, name="made")


def tiny_build(scaled, weights):
    """A convolution, batch normalisation and another convolution."""
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(scaled)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="last")(x)


def tiny_plugin() -> ModelPlugin:
    """A convolutional architecture that is built and trained in a moment."""
    return ModelPlugin(
        build=tiny_build,
        scale=lambda pixels: keras.layers.Rescaling(1 / 255)(pixels),
        image_size=(16, 16),
        minimum_size=(8, 8),
        channels=3,
        cam_layer="last",
        finetune_from="last",
    )
