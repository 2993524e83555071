"""Probability and Grad-CAM in one compiled pass beside tf-keras-vis, called for each image as its
documentation shows: `Gradcam(model)` on the image, and `predict` for the probability.

    python -m benchmarks.gradcam [--images 8]

Random weights, drawn images, the published size of each network. Both ways run in one process on the
same images, their first call left out, the best of several rounds counts, and their maps are compared.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

from benchmarks.table import Row, show
from benchmarks.timing import fastest
from chestxray import registry
from chestxray.cam import OnePass
from chestxray.explanation import gradcam
from chestxray.model import build
from chestxray.sources.phantom_drawing import draw

MODELS = ("mobilenetv3small", "densenet121")
#: One pass must be at least so many times as fast.
BAR = 10.0


def measure(images: int = 8, rounds: int = 2) -> list[Row]:
    """A row a model."""
    return [Row(f"Grad-CAM {name}", *rates(name, images, rounds), "images/s", BAR) for name in MODELS]


def rates(name: str, images: int, rounds: int) -> tuple[float, float]:
    """Images a second of tf-keras-vis and of one pass."""
    plugin = registry.load(registry.MODELS, name)
    model = build(plugin, 2, plugin.image_size, name=name).model
    pixels = films(plugin.image_size, images)
    explain = OnePass(model, plugin.cam_layer)

    def plain() -> np.ndarray:
        maps = []
        for image in pixels:
            chosen = model.predict(image[np.newaxis], verbose=0).argmax(axis=1)
            maps.append(gradcam(model, plugin.cam_layer, image[np.newaxis], chosen)[0])
        return np.stack(maps)

    def ours() -> np.ndarray:
        return explain(pixels)[1]

    np.testing.assert_allclose(ours(), plain(), atol=1e-4)
    slow, fast = (fastest(way, rounds) for way in (plain, ours))
    keras.backend.clear_session()
    return images / slow, images / fast


def films(size: tuple[int, int], count: int) -> np.ndarray:
    """Drawn films float32 (count, height, width, 1) in 0..255."""
    from PIL import Image

    drawn = [draw(seed=0, patient=i, image=0, finding="clear", size=max(size)).pixels for i in range(count)]
    fitted = [np.asarray(Image.fromarray(film).resize(size[::-1])) for film in drawn]
    return np.stack(fitted)[..., np.newaxis].astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    show(measure(parser.parse_args().images))


if __name__ == "__main__":
    main()
