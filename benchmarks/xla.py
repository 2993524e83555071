"""Speed with a measured choice of XLA, compared with two fixed rules: never (Keras's default on a CPU) and
always (its default on a GPU, and the effect of ``jit_compile=True``).

    python -m benchmarks.xla [--size 96] [--batch 16] [MODEL ...]

For every architecture, inference and training are timed without and with XLA, and a short timing
chooses as `chestxray.models.xla_compilation` does. Then both are timed again, alternating, and the choice is
compared with each rule on the second timings alone, so that a wrong choice is visible.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.table import Row, show
from benchmarks.timing import fastest

#: Architectures of the short run; each compiles for up to a minute.
TRAINED = ("shallow_cnn", "mobilenetv3small", "resnet18", "densenet121", "vgg16_gap")


def measure(
    names: Sequence[str] = (), *, size: int = 96, batch: int = 16, trained: Sequence[str] = TRAINED
) -> list[Row]:
    """Return a row per model, the choice against the worse rule; then the mean and the worst against each rule."""
    from chestxray import registry

    known = [entry.name for entry in registry.entries(registry.MODELS)]
    rows = []
    for work, some, bar in (("inference", names or known, 1.5), ("full", names or trained, 1.2)):
        told = "training" if work == "full" else work
        rates = {name: _rates(name, work, size, batch) for name in some if name in known}
        for name, (without, with_xla, chosen) in rates.items():
            note = "XLA" if chosen == with_xla else "no XLA"
            rows.append(Row(f"{name}, {told}, the choice beside the other", min(without, with_xla), chosen, "images/s",
                            None, note))  # fmt: skip
        for habit, of in (("never", 0), ("always", 1)):
            gains = [found[2] / found[of] for found in rates.values()]
            mean = math.exp(float(np.mean(np.log(gains))))
            rows.append(Row(f"XLA by measurement, {told}, geometric mean of {len(gains)} beside {habit}", 1.0, mean,
                            "x/s", bar if habit == "always" else 1.0))  # fmt: skip
            rows.append(Row(f"the same, the worst beside {habit}", 1.0, min(gains), "x/s", 0.95))
    return rows


def _rates(name: str, work: str, size: int, batch: int) -> tuple[float, float, float]:
    """Return images per second without XLA, with it, and as chosen."""
    import keras

    from chestxray import registry
    from chestxray.models import assembly, xla_compilation

    keras.backend.clear_session()
    plugin = registry.load_plugin(registry.MODELS, name)
    size = max(size, *plugin.minimum_size)
    shape = plugin.image_size if plugin.fixed_size else (size, size)
    images = np.random.default_rng(0).uniform(0, 255, (batch, *shape, 1)).astype(np.float32)
    steps = [_step(assembly.build(plugin, 2, shape, name=name).model, work, images, xla) for xla in (False, True)]
    # Chosen as for work so long that the compilation time does not matter.
    choice = xla_compilation.Timing(*(fastest(step, 3, 0.5) for step in steps), compiling=0.0).better(1)
    again = [math.inf, math.inf]
    for _ in range(4):
        for number, step in enumerate(steps):
            again[number] = min(again[number], fastest(step, 1, 0.2))
    without, with_xla = (batch / least for least in again)
    return without, with_xla, with_xla if choice else without


def _step(built, work: str, images: np.ndarray, xla: bool) -> Callable[[], object]:
    labels = np.eye(2, dtype=np.float32)[np.arange(len(images)) % 2]
    if work == "inference":
        built.compile(jit_compile=xla)
        built.predict_on_batch(images)
        return lambda: built.predict_on_batch(images)
    built.compile(optimizer="adamw", loss="categorical_crossentropy", jit_compile=xla)
    built.train_on_batch(images, labels)
    return lambda: built.train_on_batch(images, labels)


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="MODEL")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    show(measure(options.names, size=options.size, batch=options.batch))


if __name__ == "__main__":
    main()
