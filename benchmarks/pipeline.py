"""Speed of the input pipeline: whether training ever waits for images.

    python -m benchmarks.pipeline [--files 160] [--images 2000] [--rounds 5]

The baseline is Keras's `image_dataset_from_directory` with tf.data's `cache`, `shuffle`, `batch` and
`prefetch`, as a competent user would write it. Four rows: an epoch with all images in memory; the first epoch,
including decoding; the first epoch of a second run, from tf.data's cache file and from our array on disk; and
the same without any cache, as in most notebooks. Then training on the pipeline is compared with training on
one batch already in memory (1: a pipeline without cost). Last, the peak memory of an epoch over 100,000 images
is compared with that over 2,000. The two ways alternate, and the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.table import Row, show
from benchmarks.timing import Spent, pair, paired

SIZE = 224
BATCH = 32


def measure(
    *, files: int = 160, images: int = 2000, rounds: int = 5, steps: int = 12, memory_rows: int = 100_000
) -> list[Row]:
    """Return all rows of this benchmark."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        rows = [_cached(_jpegs(root / "small", images, SIZE), rounds)]
        large = _jpegs(root / "large", files, 1000)
        rows += [_first(large, root, rounds), _second(large, root, rounds), _without_cache(large, root, rounds)]
        rows += [
            _training(*case, steps, rounds)
            for case in (("shallow_cnn", "none", 0.9), ("mobilenetv3small", "none", 0.95))
        ]
        rows.append(_training("mobilenetv3small", "heavy", 0.7, steps, rounds))
        rows.append(_memory(root, memory_rows))
    return rows


def _cached(folder: Path, rounds: int) -> Row:
    """Return the row of epochs over images that both ways already hold."""
    count = len(list(folder.glob("*/*")))
    plain, mine = iter(_plain(folder).repeat()), iter(_ours(folder, folder.parent / "array"))
    for batches in (plain, mine):
        _epoch(batches, count)
    found = paired(lambda: _epoch(plain, count), lambda: _epoch(mine, count), rounds)
    name = f"an epoch of {count} images at {SIZE}, beside tf.data's cache in memory"
    return Row.of(name, found, images=count // BATCH * BATCH, bar=1.0)


def _first(folder: Path, root: Path, rounds: int) -> Row:
    """Return the row of the first epoch, from the files; both ways fill a cache."""
    count, work = len(list(folder.glob("*/*"))), root / "first"

    def ours() -> None:
        _epoch(iter(_ours(folder, work)), count)

    def plain() -> None:
        _epoch(iter(_plain(folder)), count)

    goes = []
    for number in range(rounds):
        ways = [plain, ours] if number % 2 else [ours, plain]
        taken = {}
        for way in ways:
            shutil.rmtree(work, ignore_errors=True)
            start = Spent.now()
            way()
            taken[way.__name__] = Spent.now().since(start)
        goes.append((taken["plain"], taken["ours"]))
    name = f"the first epoch of {count} JPEG files of 1,000 pixels, beside the same"
    return Row.of(name, pair(goes), images=count // BATCH * BATCH, bar=1.0)


def _second(folder: Path, root: Path, rounds: int) -> Row:
    """Return the rows of the first epoch of a later run, from the cache on disk."""
    count, file, work = len(list(folder.glob("*/*"))), str(root / "tf-cache"), root / "second"
    for _ in _plain(folder, file):
        pass
    _ours(folder, work)
    found = paired(
        lambda: _epoch(iter(_plain(folder, file)), count), lambda: _epoch(iter(_ours(folder, work)), count), rounds
    )
    name = "the first epoch of a second run, beside tf.data's cache in a file"
    return Row.of(name, found, images=count // BATCH * BATCH)


def _without_cache(folder: Path, root: Path, rounds: int) -> Row:
    import keras

    count = len(list(folder.glob("*/*")))
    plain = keras.utils.image_dataset_from_directory(folder, **_read_as(), batch_size=BATCH)
    mine = iter(_ours(folder, root / "second"))
    found = paired(lambda: _epoch(iter(plain), count), lambda: _epoch(mine, count), rounds)
    return Row.of("a later epoch, beside decoding in every epoch", found, images=count // BATCH * BATCH)


def _read_as() -> dict[str, Any]:
    return {"image_size": (SIZE, SIZE), "color_mode": "grayscale", "label_mode": "categorical", "verbose": False}


def _plain(folder: Path, cache: str = "") -> Any:
    """Return shuffled batches of an epoch from tf.data's cache, in memory or in the file `cache`."""
    import keras
    import tensorflow as tf

    single = keras.utils.image_dataset_from_directory(folder, **_read_as(), batch_size=None, shuffle=False)
    count = len(list(folder.glob("*/*")))
    return single.cache(cache).shuffle(count).batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _ours(folder: Path, work: Path) -> Any:
    """Return endless shuffled batches from the array that is decoded into `work`, unless it already exists."""
    from chestxray.data.decoded import decode
    from chestxray.data.sources.folder import load
    from chestxray.plugin import SourceOptions
    from chestxray.recipe import Recipe
    from chestxray.training import input_pipeline

    index = load(str(folder), SourceOptions(cache=work))
    pixels = decode(index, (SIZE, SIZE), "stretch", work).pixels
    labels = np.eye(2, dtype=np.float32)[(index.rows["label"] == index.classes[1]).to_numpy().astype(int)]
    return input_pipeline.training(pixels, np.arange(len(pixels)), labels, Recipe(augment="none", batch_size=BATCH))


def _epoch(batches: Iterator, count: int) -> None:
    """Read the batches of one epoch."""
    for _ in itertools.islice(batches, count // BATCH):
        pass


def _jpegs(folder: Path, count: int, side: int) -> Path:
    """Write `count` JPEG files to two class folders, as smooth as radiographs."""
    generator = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(generator.integers(0, 256, (64, 64), dtype=np.uint8))
        (folder / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        small.resize((side, side)).save(folder / f"{number % 2}" / f"{number}.jpg", quality=90)
    return folder


def _training(name: str, augment: str, bar: float, steps: int, rounds: int, batch: int = BATCH) -> Row:
    """Return the row of images per second of `fit` on the pipeline and on one preloaded batch, alternating."""
    import keras
    import tensorflow as tf

    from chestxray import registry
    from chestxray.models import assembly
    from chestxray.recipe import Recipe
    from chestxray.training import input_pipeline

    keras.backend.clear_session()
    built = assembly.build(registry.load_plugin(registry.MODELS, name), 2, (SIZE, SIZE), name=name).model
    built.compile(optimizer="adamw", loss="categorical_crossentropy", jit_compile=False)
    pixels, labels = _drawn(batch * 8)
    recipe = Recipe(augment=augment, batch_size=batch)
    ours = input_pipeline.training(pixels, np.arange(len(pixels)), labels, recipe)
    held = tf.data.Dataset.from_tensors((pixels[:batch, ..., None].astype(np.float32), labels[:batch])).cache().repeat()
    times = Steps(skip=3)
    goes = []
    for number in range(rounds):
        taken = {}
        for which, data in [("held", held), ("ours", ours)][:: 1 if number % 2 else -1]:
            built.fit(data, steps_per_epoch=steps + 3, epochs=1, verbose=0, callbacks=[times])
            taken[which] = times.spent
        goes.append((taken["held"], taken["ours"]))
    note = "plain: one batch held in memory, not augmented"
    return Row.of(f"training {name}, augment {augment}", pair(goes), images=batch * steps, bar=bar, note=note)


class Steps:
    """Measures the time of the training steps after the first `skip`; becomes a Keras callback on use."""

    def __new__(cls, skip: int):
        import keras

        class Timer(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == skip:
                    self.start = Spent.now()

            def on_train_end(self, logs=None):
                self.spent = Spent.now().since(self.start)

        return Timer()


def _memory(root: Path, rows: int) -> Row:
    """Return the row of peak memory for reading an epoch of `rows` images from disk, each in a separate process."""
    peaks = []
    for count in (2000, rows):
        command = [sys.executable, "-m", "benchmarks.pipeline", "--memory-of", str(count), "--within", str(root)]
        peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]))
    return Row(f"peak memory, {rows:,} images for 2,000", peaks[0], peaks[1], "MB", 0.8, "plain: 2,000 images")


def _peak(within: Path, rows: int) -> float:
    from chestxray.recipe import Recipe
    from chestxray.training import input_pipeline

    path = within / f"{rows}.npy"
    # A sparse file: the zeros take no disk space and are read like other values.
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(rows, 96, 96))
    labels = np.eye(2, dtype=np.float32)[np.arange(rows) % 2]
    pixels = np.load(path, mmap_mode="r")
    batches = iter(input_pipeline.training(pixels, np.arange(rows), labels, Recipe(augment="none", batch_size=64)))
    for _ in range(rows // 64):
        next(batches)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    # Private memory only, since the system can drop pages of the file.
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def _drawn(rows: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (rows, SIZE, SIZE), dtype=np.uint8)
    return pixels, np.eye(2, dtype=np.float32)[np.arange(rows) % 2]


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=160, help="JPEG files of 1,000 pixels")
    parser.add_argument("--images", type=int, default=2000, help="images of an epoch from memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--memory-rows", type=int, default=100_000)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(_peak(options.within, options.memory_of))
        return
    show(
        measure(
            files=options.files,
            images=options.images,
            rounds=options.rounds,
            steps=options.steps,
            memory_rows=options.memory_rows,
        )
    )


if __name__ == "__main__":
    main()
