"""What measuring whether XLA is worth it gains over Keras's default, which is XLA wherever it works.

    python -m benchmarks.xla [--size 96] [--batch 16] [MODEL ...]

For every architecture, inference and training are timed with and without XLA; the faster of the two
short timings is the choice, as in `chestxray.jit`. Then both compiled steps are timed again, in turns,
and the choice is set against the default on those second timings alone, so that a wrong choice shows.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.table import Row, show

#: Trained in the short run: each compiles for up to a minute.
TRAINED = ("shallow_cnn", "mobilenetv3small", "resnet18", "densenet121", "vgg16_gap")


def measure(
    names: Sequence[str] = (), *, size: int = 96, batch: int = 16, trained: Sequence[str] = TRAINED
) -> list[Row]:
    """A row for the geometric mean of inference, one of training, and one for the worst of each."""
    from chestxray import registry

    known = [entry.name for entry in registry.entries(registry.MODELS)]
    rows = []
    for work, some, bar in (("inference", names or known, 1.5), ("full", names or trained, 1.2)):
        each = [_one(name, work, size, batch) for name in some if name in known]
        ratios = [row.ratio for row in each]
        mean = math.exp(float(np.mean(np.log(ratios))))
        rows += each
        told = "inference" if work == "inference" else "training"
        rows.append(Row(f"XLA by measurement, {told}, geometric mean of {len(each)}", 1.0, mean, "x/s", bar))
        rows.append(Row(f"XLA by measurement, {told}, the worst", 1.0, min(ratios), "x/s", 0.95))
    return rows


def _one(name: str, work: str, size: int, batch: int) -> Row:
    import keras

    from chestxray import model, registry

    keras.backend.clear_session()
    plugin = registry.load(registry.MODELS, name)
    size = max(size, *plugin.minimum_size)
    shape = plugin.image_size if plugin.fixed_size else (size, size)
    images = np.random.default_rng(0).uniform(0, 255, (batch, *shape, 1)).astype(np.float32)
    # Keras's own default, and the same without XLA.
    steps = {jit: _step(model.build(plugin, 2, shape, name=name).model, work, images, jit) for jit in ("auto", False)}
    short = {jit: _fastest(step, 3) for jit, step in steps.items()}
    chosen = min(short, key=lambda jit: short[jit])
    again = dict.fromkeys(steps, math.inf)
    for _ in range(3):
        for jit, step in steps.items():
            again[jit] = min(again[jit], _fastest(step, 2))
    note = "XLA" if chosen == "auto" else "plain"
    told = "inference" if work == "inference" else "training"
    return Row(f"{name}, {told} at {shape[0]}", batch / again["auto"], batch / again[chosen], "images/s", None, note)


def _step(built, work: str, images: np.ndarray, jit) -> Callable[[], object]:
    labels = np.eye(2, dtype=np.float32)[np.arange(len(images)) % 2]
    if work == "inference":
        built.compile(jit_compile=jit)
        built.predict_on_batch(images)
        return lambda: built.predict_on_batch(images)
    built.compile(optimizer="adamw", loss="categorical_crossentropy", jit_compile=jit)
    built.train_on_batch(images, labels)
    return lambda: built.train_on_batch(images, labels)


def _fastest(step: Callable[[], object], times: int) -> float:
    found = math.inf
    for _ in range(times):
        start = time.perf_counter()
        step()
        found = min(found, time.perf_counter() - start)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="MODEL")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    show(measure(options.names, size=options.size, batch=options.batch))


if __name__ == "__main__":
    main()
