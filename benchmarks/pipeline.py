"""Is training ever kept waiting for images?

    python -m benchmarks.pipeline

The pipeline alone, from the decoded array, against Keras's `image_dataset_from_directory` on JPEGs of
1,000 pixels; then training on it against training on one batch that is in memory already: 1 would be
a pipeline that costs nothing. Last, peak memory of an epoch over 100,000 images beside that over 2,000.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.table import Row, show

SIZE = 224


def measure(*, files: int = 160, steps: int = 12, memory_rows: int = 100_000) -> list[Row]:
    """All rows of this benchmark."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        rows = [_against_keras(root / "jpegs", files)]
        rows += [_training(*case, steps) for case in (("shallow_cnn", "none", 0.9), ("mobilenetv3small", "none", 0.95))]
        rows.append(_training("mobilenetv3small", "heavy", 0.7, steps))
        rows.append(_memory(root, memory_rows))
    return rows


def _against_keras(folder: Path, files: int) -> Row:
    """Images a second of two epochs of shuffled batches, by the better of the two epochs."""
    import keras

    from chestxray import pipeline
    from chestxray.recipe import Recipe

    generator = np.random.default_rng(0)
    for number in range(files):
        small = Image.fromarray(generator.integers(0, 256, (64, 64), dtype=np.uint8))
        (folder / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        small.resize((1000, 1000)).save(folder / f"{number % 2}" / f"{number}.jpg", quality=90)
    plain = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), color_mode="grayscale", label_mode="categorical", batch_size=32, verbose=False
    )
    pixels, labels = _drawn(2000)
    ours = pipeline.training(pixels, np.arange(2000), labels, Recipe(augment="none", batch_size=32))
    plain_rate = max(_rate(iter(plain), files // 32) for _ in range(2))
    batches = iter(ours)
    ours_rate = max(_rate(batches, 62) for _ in range(3))
    return Row("pipeline alone, no augmentation", plain_rate, ours_rate, "images/s", 20)


def _rate(batches: Iterator, steps: int) -> float:
    next(batches)
    start = time.perf_counter()
    seen = sum(len(next(batches)[1]) for _ in range(max(1, steps - 1)))
    return seen / (time.perf_counter() - start)


def _training(name: str, augment: str, bar: float, steps: int, batch: int = 32) -> Row:
    """Images a second of `fit` on the pipeline and on one preloaded batch, in turns, the best of each."""
    import keras
    import tensorflow as tf

    from chestxray import model, pipeline, registry
    from chestxray.recipe import Recipe

    keras.backend.clear_session()
    built = model.build(registry.load(registry.MODELS, name), 2, (SIZE, SIZE), name=name).model
    built.compile(optimizer="adamw", loss="categorical_crossentropy", jit_compile=False)
    pixels, labels = _drawn(batch * 8)
    recipe = Recipe(augment=augment, batch_size=batch)
    ours = pipeline.training(pixels, np.arange(len(pixels)), labels, recipe)
    held = tf.data.Dataset.from_tensors((pixels[:batch, ..., None].astype(np.float32), labels[:batch])).cache().repeat()
    times = Steps(skip=3)
    rates: dict[str, list[float]] = {"held": [], "ours": []}
    for _ in range(3):
        for which, data in (("held", held), ("ours", ours)):
            built.fit(data, steps_per_epoch=steps + 3, epochs=1, verbose=0, callbacks=[times])
            rates[which].append(batch * steps / times.seconds)
    return Row(f"training {name}, augment {augment}", max(rates["held"]), max(rates["ours"]), "images/s", bar,
               "plain: one batch held in memory")  # fmt: skip


class Steps:
    """Made a Keras callback when it is used: seconds of the steps after the first `skip`."""

    def __new__(cls, skip: int):
        import keras

        class Timer(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == skip:
                    self.start = time.perf_counter()

            def on_train_end(self, logs=None):
                self.seconds = time.perf_counter() - self.start

        return Timer()


def _memory(root: Path, rows: int) -> Row:
    """Peak memory of reading an epoch of `rows` images from an array on disk, in a process of its own."""
    peaks = []
    for count in (2000, rows):
        command = [sys.executable, "-m", "benchmarks.pipeline", "--memory-of", str(count), "--within", str(root)]
        peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]))
    return Row(f"peak memory, {rows:,} images for 2,000", peaks[0], peaks[1], "MB", 0.8, "plain: 2,000 images")


def _peak(within: Path, rows: int) -> float:
    from chestxray import pipeline
    from chestxray.recipe import Recipe

    path = within / f"{rows}.npy"
    # Sparse: zeros that take no room on the disk, and are read like any others.
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(rows, 96, 96))
    labels = np.eye(2, dtype=np.float32)[np.arange(rows) % 2]
    pixels = np.load(path, mmap_mode="r")
    batches = iter(pipeline.training(pixels, np.arange(rows), labels, Recipe(augment="none", batch_size=64)))
    for _ in range(rows // 64):
        next(batches)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    # Private memory: pages of the file are the system's to drop.
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def _drawn(rows: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (rows, SIZE, SIZE), dtype=np.uint8)
    return pixels, np.eye(2, dtype=np.float32)[np.arange(rows) % 2]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=160)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(_peak(options.within, options.memory_of))
        return
    show(measure(files=options.files, steps=options.steps))


if __name__ == "__main__":
    main()
