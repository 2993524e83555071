"""ONNX Runtime with probability and heat map together, beside `model.predict` without the map.

    python -m benchmarks.onnx_export [--images 32]

Random weights, drawn images, the published size of each network, batches of 32 in `predict` (Keras's
own) and of 16 in ONNX Runtime. Both ways run in one process on the same images and the same cores, in
turn, their first call left out; the best of several rounds counts, and their answers are compared.
"""

from __future__ import annotations

import argparse
from typing import Any

import keras
import numpy as np

from benchmarks.gradcam import films
from benchmarks.table import Row, show
from benchmarks.timing import seconds
from chestxray import registry
from chestxray.cam import Graph
from chestxray.export.formats import onnx_model
from chestxray.model import build
from chestxray.onnx_engine import session

MODELS = ("mobilenetv3small", "densenet121", "inceptionv3")
#: ONNX Runtime must be at least as fast.
BAR = 1.0
BATCH = 16


def measure(images: int = 32, rounds: int = 3) -> list[Row]:
    """A row a model."""
    return [Row(f"ONNX with map {name}", *rates(name, images, rounds), "images/s", BAR) for name in MODELS]


def rates(name: str, images: int, rounds: int) -> tuple[float, float]:
    """Images a second of `predict` and of ONNX Runtime."""
    plugin = registry.load(registry.MODELS, name)
    model = build(plugin, 2, plugin.image_size, name=name).model
    # As a run loads it.
    model.compile(jit_compile=False)
    runtime = exported(model, plugin.cam_layer)
    pixels = films(plugin.image_size, images)
    raw = pixels.astype(np.uint8)

    def plain() -> np.ndarray:
        return model.predict(pixels, verbose=0)

    def ours() -> np.ndarray:
        parts = [runtime.run(["probabilities", "map"], {"pixels": raw[i : i + BATCH]}) for i in range(0, images, BATCH)]
        return np.concatenate([probabilities for probabilities, _ in parts])

    np.testing.assert_allclose(ours(), plain(), atol=1e-4)
    taken = [(seconds(plain), seconds(ours)) for _ in range(rounds)]
    keras.backend.clear_session()
    return images / min(slow for slow, _ in taken), images / min(fast for _, fast in taken)


def exported(model: keras.Model, layer: str) -> Any:
    """A session of ONNX Runtime, as the engine opens it, for the model with its maps."""
    return session(onnx_model(Graph(model, layer)).SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    show(measure(parser.parse_args().images))


if __name__ == "__main__":
    main()
