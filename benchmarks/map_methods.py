"""Speed of heat maps of several methods, compared with tf-keras-vis in batches of 32, its engine made once.

    python -m benchmarks.map_methods [--images 2] [--rounds 3] [--models mobilenetv3small deep_cnn]
        [--methods gradcam++ layercam scorecam] [--weights imagenet]

Uses random images, the published image size of each network, and random weights unless --weights names others: with
trained weights more channels are 0 everywhere, which Score-CAM need not evaluate. The two ways run in one process on
the same images, alternating, without their first call; the raw maps are checked to agree.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import keras
import numpy as np

from benchmarks.gradcam import films
from benchmarks.table import Row, show
from benchmarks.timing import paired
from chestxray import registry
from chestxray.explanation.library_maps import layer_maps
from chestxray.explanation.methods import enlarged, raw_maps
from chestxray.models.assembly import build, logits_model

MODELS, METHODS = ("mobilenetv3small", "deep_cnn"), ("gradcam++", "layercam", "scorecam")
#: The least acceptable ratio, by method.
BARS = {"scorecam": 3.0}


def measure(
    images: int = 2,
    rounds: int = 3,
    models: Sequence[str] = MODELS,
    methods: Sequence[str] = METHODS,
    weights: str | None = None,
) -> list[Row]:
    """Return a row of each model and method."""
    return [row for name in models for row in of_model(name, images, rounds, methods, weights)]


def of_model(name: str, images: int, rounds: int, methods: Sequence[str], weights: str | None) -> list[Row]:
    """Return rows with the images per second of tf-keras-vis and of `raw_maps`."""
    plugin = registry.load_plugin(registry.MODELS, name)
    model = build(plugin, 2, plugin.image_size, name=name, weights=weights).model
    pixels = films(plugin.image_size, images).astype(np.uint8)
    classes = np.zeros(images, np.int32)
    logits, layer = logits_model(model), plugin.cam_layer
    rows = []
    for method in methods:

        def plain(method: str = method) -> np.ndarray:
            return layer_maps(method, logits, layer, pixels.astype(np.float32), classes)

        def ours(method: str = method) -> np.ndarray:
            return raw_maps(method, model, layer, pixels, classes)

        theirs = enlarged(plain(), plugin.image_size)
        # Each by its own highest value: the library's Grad-CAM++ has a factor for each map that ours leave out.
        np.testing.assert_allclose(*(to_highest(maps) for maps in (ours(), theirs)), atol=2e-3)
        found = paired(plain, ours, rounds)
        rows.append(Row.of(f"{method} {name}, beside tf-keras-vis", found, images=images, bar=BARS.get(method)))
    keras.backend.clear_session()
    return rows


def to_highest(maps: np.ndarray) -> np.ndarray:
    """Return maps (rows, height, width), each divided by its highest value; an empty one as it is."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1)


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--weights")
    chosen = parser.parse_args()
    show(measure(chosen.images, chosen.rounds, chosen.models, chosen.methods, chosen.weights))


if __name__ == "__main__":
    main()
