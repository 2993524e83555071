"""Speed of probabilities and Grad-CAM in one compiled pass, compared with three other ways:

- a hand-written gradient tape, compiled once, in batches, as a competent user would write it;
- tf-keras-vis in batches, created once, and `predict` for the probabilities;
- tf-keras-vis image by image, as in its documentation.

    python -m benchmarks.gradcam [--images 16] [--rounds 5] [--models mobilenetv3small densenet121]

Uses random weights, random images and the published image size of each network. The ways run in one process on
the same images, alternating with ours, without their first call; the maps are checked to agree. The ratio is
the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import keras
import numpy as np

from benchmarks.table import Row, show
from benchmarks.timing import paired
from chestxray import registry
from chestxray.data.sources.phantom.drawing import draw
from chestxray.explanation.gradcam import enlarge
from chestxray.explanation.inference_graph import OnePass
from chestxray.explanation.library_maps import engine_of, gradcam
from chestxray.models.assembly import build, logits_model

MODELS = ("mobilenetv3small", "densenet121")
BATCH = 16
Way = Callable[[], tuple[np.ndarray, np.ndarray]]


def measure(images: int = 16, rounds: int = 5, models: Sequence[str] = MODELS) -> list[Row]:
    """Return the rows of each model, the fairest comparison first."""
    return [row for name in models for row in beside(name, images, rounds)]


def beside(name: str, images: int, rounds: int) -> list[Row]:
    """Return rows with the images per second of each baseline and of the single pass."""
    plugin = registry.load_plugin(registry.MODELS, name)
    model = build(plugin, 2, plugin.image_size, name=name).model
    pixels = films(plugin.image_size, images)
    explain = OnePass(model, plugin.cam_layer)

    def ours() -> tuple[np.ndarray, np.ndarray]:
        return explain(pixels, batch_size=BATCH)

    ways: dict[str, tuple[Way, float | None]] = {
        f"a compiled tape in batches of {BATCH}": (by_tape(model, plugin.cam_layer, pixels), 1.0),
        f"tf-keras-vis in batches of {BATCH}": (by_library(model, plugin.cam_layer, pixels), None),
        "tf-keras-vis image by image": (one_by_one(model, plugin.cam_layer, pixels), None),
    }
    rows = []
    for what, (plain, bar) in ways.items():
        (mine, own), (theirs, others) = ours(), plain()
        np.testing.assert_allclose(mine, theirs, atol=2e-3)
        # The library scales each map to its own range.
        np.testing.assert_allclose(to_own_range(own), to_own_range(others), atol=2e-3)
        rows.append(Row.of(f"Grad-CAM {name}, beside {what}", paired(plain, ours, rounds), images=images, bar=bar))
    keras.backend.clear_session()
    return rows


def by_tape(model: keras.Model, layer: str, pixels: np.ndarray) -> Way:
    """Return a function like the example of keras.io, for batches and compiled once."""
    import tensorflow as tf

    logits = logits_model(model)
    probe = keras.Model(model.inputs[0], [logits.get_layer(layer).output, logits.output, model.output])
    size = tuple(pixels.shape[1:3])

    @tf.function
    def explained(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            features, scores, probabilities = probe(batch, training=False)
            score = tf.reduce_sum(tf.reduce_max(scores, axis=1))
        weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
        evidence = tf.nn.relu(tf.reduce_sum(features * weights, axis=-1))
        # Our enlargement, so that the maps can be compared.
        return probabilities, enlarge(evidence, size)

    def way() -> tuple[np.ndarray, np.ndarray]:
        parts = [explained(tf.constant(batch)) for batch in batches(pixels)]
        return tuple(np.concatenate([part[i] for part in parts]) for i in (0, 1))  # type: ignore[return-value]

    return way


def by_library(model: keras.Model, layer: str, pixels: np.ndarray) -> Way:
    """Return a function that uses one tf-keras-vis object for all batches."""
    engine, score = engine_of(logits_model(model))

    def way() -> tuple[np.ndarray, np.ndarray]:
        probabilities = model.predict(pixels, batch_size=BATCH, verbose=0)
        chosen = np.split(probabilities.argmax(axis=1), range(BATCH, len(pixels), BATCH))
        maps = [
            engine(score(classes.tolist()), batch, penultimate_layer=layer, seek_penultimate_conv_layer=False)
            for classes, batch in zip(chosen, batches(pixels), strict=True)
        ]
        return probabilities, np.concatenate(maps)

    return way


def one_by_one(model: keras.Model, layer: str, pixels: np.ndarray) -> Way:
    """Return a function that calls `Gradcam(model)` and `predict` for each image."""

    def way() -> tuple[np.ndarray, np.ndarray]:
        probabilities = [model.predict(image[np.newaxis], verbose=0) for image in pixels]
        pairs = zip(pixels, probabilities, strict=True)
        maps = [gradcam(model, layer, image[np.newaxis], found.argmax(axis=1)) for image, found in pairs]
        return np.concatenate(probabilities), np.concatenate(maps)

    return way


def to_own_range(maps: np.ndarray) -> np.ndarray:
    """Return maps (rows, height, width), each scaled from its lowest to its highest value."""
    low, high = (end(maps, axis=(1, 2), keepdims=True) for end in (np.min, np.max))
    return (maps - low) / (high - low + 1e-7)


def batches(pixels: np.ndarray) -> list[np.ndarray]:
    """Return `pixels` in batches of `BATCH`."""
    return np.split(pixels, range(BATCH, len(pixels), BATCH))


def films(size: tuple[int, int], count: int) -> np.ndarray:
    """Return random images, float32 (count, height, width, 1) in 0..255."""
    from PIL import Image

    drawn = [draw(seed=0, patient=i, image=0, finding="clear", size=max(size)).pixels for i in range(count)]
    fitted = [np.asarray(Image.fromarray(film).resize(size[::-1])) for film in drawn]
    return np.stack(fitted)[..., np.newaxis].astype(np.float32)


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=MODELS)
    chosen = parser.parse_args()
    show(measure(chosen.images, chosen.rounds, chosen.models))


if __name__ == "__main__":
    main()
