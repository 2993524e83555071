"""Speed of ONNX Runtime with probabilities and heat maps, compared with TensorFlow: our compiled function that
returns both, and `model.predict`, which returns the probabilities only.

    python -m benchmarks.onnx_export [--images 32] [--rounds 5] [--models mobilenetv3small ...]

Uses random weights, random images, the published image size of each network, batches of 32 in `predict`
(Keras's default) and of 16 in the others. The ways alternate in one process on the same images and cores,
without their first call, and their outputs are compared. The ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from benchmarks.gradcam import films
from benchmarks.table import Row, show
from benchmarks.timing import paired
from chestxray import registry
from chestxray.explanation.inference_graph import Graph, OnePass
from chestxray.export.formats import onnx_model
from chestxray.inference.onnx_engine import session
from chestxray.models.assembly import build

MODELS = ("mobilenetv3small", "densenet121", "inceptionv3")
#: Target: ONNX Runtime is at least as fast.
BAR = 1.0
BATCH = 16


def measure(images: int = 32, rounds: int = 5, models: Sequence[str] = MODELS) -> list[Row]:
    """Return two rows per model: compared with the function that returns both, and with `predict`."""
    return [row for name in models for row in beside(name, images, rounds)]


def beside(name: str, images: int, rounds: int) -> list[Row]:
    """Return rows with the images per second of TensorFlow and of ONNX Runtime."""
    plugin = registry.load_plugin(registry.MODELS, name)
    model = build(plugin, 2, plugin.image_size, name=name).model
    # As loaded from a run.
    model.compile(jit_compile=False)
    runtime = exported(model, plugin.cam_layer)
    compiled = OnePass(model, plugin.cam_layer)
    pixels = films(plugin.image_size, images)
    raw = pixels.astype(np.uint8)

    def predicted() -> np.ndarray:
        return model.predict(pixels, verbose=0)

    def with_map() -> np.ndarray:
        return compiled(pixels, batch_size=BATCH)[0]

    def ours() -> np.ndarray:
        parts = [runtime.run(["probabilities", "map"], {"pixels": raw[i : i + BATCH]}) for i in range(0, images, BATCH)]
        return np.concatenate([probabilities for probabilities, _ in parts])

    rows = []
    for what, plain in (("our TensorFlow function with map", with_map), ("`predict` without map", predicted)):
        np.testing.assert_allclose(ours(), plain(), atol=1e-4)
        found = paired(plain, ours, rounds)
        rows.append(Row.of(f"ONNX with map, {name}, beside {what}", found, images=images, bar=BAR))
    keras.backend.clear_session()
    return rows


def exported(model: keras.Model, layer: str) -> Any:
    """Return a session of ONNX Runtime for the model with its maps, opened as the engine does."""
    return session(onnx_model(Graph(model, layer)).SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=MODELS)
    chosen = parser.parse_args()
    show(measure(chosen.images, chosen.rounds, chosen.models))


if __name__ == "__main__":
    main()
