"""Caches the activations of frozen layers on disk, computed once for each image.

A set is a folder ``activations/KEY`` of the cache with an array ``N.npy`` (rows, ...) for each
tensor at the cut, and ``checksums.npy`` uint64 (rows,), 0 where nothing is computed yet. A row is a row of
the decoded array, so that splits, folds, seeds and repeated runs share a set. A row is computed when it is
first needed: a run may never need those of its test. Checksums of a block of rows are written once the
block is, so that an interrupted run goes on from there; a row that no longer has its checksum is
computed again. The key is made of the pixels, the frozen layers and their
weights, the view and the precision.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import xxhash

from chestxray.data.decoded import reserve
from chestxray.errors import NonFiniteError
from chestxray.models import backend, forward, interrupts, non_finite
from chestxray.storage import cache_use, row_checksums
from chestxray.storage.files import replacing
from chestxray.training import graph_split
from chestxray.training.augmentation import augment, draws_of, identity, policy_of

if not backend.on_jax():
    import tensorflow as tf

#: Changes whenever the same key would give other numbers.
VERSION = 2
log = logging.getLogger(__name__)
#: Images computed at once.
BATCH = 32
#: Bytes that are computed before they are written and marked as done.
BLOCK = 2**27

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class View:
    """One way of seeing each image: the name of a policy of augmentation, and which draw of it.

    The draw is a function of its number and the row alone, so that runs of other seeds share it.
    """

    policy: str = "none"
    number: int = 0


class Store:
    """The sets of one ``front`` (pixels to the tensors at the cut) on one array of ``pixels`` uint8
    (rows, height, width). `precision` is float32 or float16; tensors of float16 are kept as such.

    ``computed`` and ``seconds`` count the rows that were not there before, and the time they took.
    """

    def __init__(self, front: keras.Model, pixels: np.ndarray, precision: str, cache: Path) -> None:
        self.front = front
        self.pixels = pixels
        self.folder = cache / "activations"
        given = [tensor.dtype for tensor in front.outputs]
        self.kinds = [np.dtype("float16" if "float16" in (kind, precision) else kind) for kind in given]
        self.computed = 0
        self.seconds = 0.0
        #: Rows by set that were looked at, or computed, here.
        self._checked: dict[Path, np.ndarray] = {}
        self._of_all = f"{_jax()}{VERSION}:{self.kinds}:{graph_split.fingerprint(front)}:{_fingerprint(pixels)}"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in one view."""
        return sum(
            math.prod(tensor.shape[1:]) * kind.itemsize
            for tensor, kind in zip(self.front.outputs, self.kinds, strict=True)
        )

    def missing(self, view: View) -> int:
        """Bytes that a set of `view` would add to the cache."""
        return 0 if self._set(view).is_dir() else len(self.pixels) * self.row_bytes

    def filled(self, view: View, rows: np.ndarray) -> Arrays:
        """Read-only maps (all rows, ...) whose `rows` hold the activations of that `view`.

        Raises:
            OutputError: the cache's disk is full or cannot be written.
            NonFiniteError: an activation is NaN or infinite.
            OverflowError: an activation is larger than float16 can hold.
        """
        folder = self._set(view)
        # Two runs that need the same set: the second waits and finds it made.
        with cache_use.held(folder):
            if folder.is_dir() and not self._whole(folder):
                log.warning("Damaged in the cache: %s. It is deleted, and computed again.", folder)
                shutil.rmtree(folder)
            if not folder.is_dir():
                self._reserve(folder)
                self._checked.pop(folder, None)
            sums = np.load(folder / row_checksums.FILE)
            missing = self._missing(folder, sums, rows)
            started = time.perf_counter()
            # Whole batches, so that all but the last have one shape.
            block = max(1, BLOCK // (self.row_bytes * BATCH)) * BATCH
            for start in range(0, len(missing), block):
                some = missing[start : start + block]
                with interrupts.deferred() as check:
                    self._compute(view, some, folder, check)
                sums[some] = row_checksums.of(self._open(folder, "r"), some)
                with replacing(folder / row_checksums.FILE) as temporary:
                    np.save(temporary, sums)
                self._checked[folder][some] = True
            if len(missing):
                self.computed += len(missing)
                self.seconds += time.perf_counter() - started
        return self._open(folder, "r")

    def _set(self, view: View) -> Path:
        return self.folder / xxhash.xxh3_128_hexdigest(f"{self._of_all}:{view}{identity(view.policy)}".encode())

    def _reserve(self, folder: Path) -> None:
        partial = folder.with_suffix(".partial")
        partial.mkdir(exist_ok=True)
        for number, (tensor, kind) in enumerate(zip(self.front.outputs, self.kinds, strict=True)):
            reserve(partial / f"{number}.npy", (len(self.pixels), *tensor.shape[1:]), kind)
        np.save(partial / row_checksums.FILE, np.zeros(len(self.pixels), np.uint64))
        partial.replace(folder)

    def _whole(self, folder: Path) -> bool:
        """Whether the arrays of a set are of the shapes and kinds that they were reserved with."""
        wanted = [
            ((len(self.pixels), *tensor.shape[1:]), kind)
            for tensor, kind in zip(self.front.outputs, self.kinds, strict=True)
        ]
        try:
            found = [(array.shape, array.dtype) for array in self._open(folder, "r")]
            sums = np.load(folder / row_checksums.FILE)
        except Exception:  # what NumPy's parser of headers raises has no common root
            return False
        return found == wanted and (sums.shape, sums.dtype) == ((len(self.pixels),), np.uint64)

    def _missing(self, folder: Path, sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return those of `rows` that are not computed yet or are damaged. The checksum of each is compared once."""
        checked = self._checked.setdefault(folder, np.zeros(len(sums), bool))
        known = rows[(sums[rows] != 0) & ~checked[rows]]
        right = row_checksums.of(self._open(folder, "r"), known) == sums[known]
        if not right.all():
            log.warning("Damaged in the cache: %d rows of %s. They are computed again.", (~right).sum(), folder)
        checked[known[right]] = True
        return rows[~checked[rows]]

    def _open(self, folder: Path, mode: Literal["r", "r+"]) -> tuple[np.memmap, ...]:
        return tuple(np.load(folder / f"{number}.npy", mmap_mode=mode) for number in range(len(self.kinds)))

    def _compute(self, view: View, rows: np.ndarray, folder: Path, check: Callable[[], None]) -> None:
        arrays = self._open(folder, "r+")
        start = 0
        for batch in images(self.pixels, rows, view):
            check()
            given = [np.asarray(part) for part in self._run(batch)]
            some = rows[start : start + len(batch)]
            start += len(batch)
            for array, part in zip(arrays, given, strict=True):
                if not np.isfinite(part).all():
                    first = non_finite.first_layer(self.front, batch)
                    raise NonFiniteError(
                        f"The frozen layers give NaN or infinity; the first layer of the graph that is not finite: "
                        f"{first or 'none, when it computes layer by layer'}."
                    )
                with np.errstate(over="ignore"):
                    array[some] = part
                if array.dtype != part.dtype and np.isinf(array[some]).any():
                    raise OverflowError(f"an activation is larger than {array.dtype} can hold")
        for array in arrays:
            array.flush()

    @cached_property
    def _run(self) -> Callable[[tf.Tensor], list[tf.Tensor]]:
        """The front with its weights as constants: TensorFlow then folds batch normalisation into
        convolutions, which makes MobileNetV2 1.4 times as fast on a CPU. What it gives differs from
        the front's own by float32's rounding, and is as near to the truth in float64.
        """
        if backend.on_jax():
            from chestxray.models import jax_forward

            return jax_forward.Compiled(self.front)
        signature = [tf.TensorSpec(self.front.input.shape, tf.float32)]
        function = tf.function(
            lambda batch: tf.nest.flatten(self.front(batch, training=False)),
            input_signature=signature,
            autograph=False,
        )
        return forward.freeze(function)


def _jax() -> str:
    """What the backends compute differs in its last bits: each has sets of its own."""
    return "jax:" if backend.on_jax() else ""


def images(pixels: np.ndarray, rows: np.ndarray, view: View) -> tf.data.Dataset:
    """Batches of float32 images (batch, height, width, 1) of `rows` in their order, in that `view`."""
    dataset = forward.batches(pixels, rows, BATCH)
    policy = policy_of(view.policy)
    if view.policy == "none":
        return dataset
    shape = (*pixels.shape[1:], 1)

    def draw(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        streams = [np.random.default_rng([view.number, int(row)]) for row in some]
        draws = np.stack([stream.random(draws_of(policy), np.float32) for stream in streams])
        if not policy.noise:
            return draws, np.zeros((len(some), *shape), np.float32)
        return draws, np.stack([stream.standard_normal(shape, np.float32) for stream in streams])

    if backend.on_jax():
        from chestxray.training import jax_pipeline

        places = (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
        return (jax_pipeline.seen(batch, *draw(some), policy) for batch, some in zip(dataset, places, strict=True))

    @tf.autograph.experimental.do_not_convert
    def change(batch: tf.Tensor, some: tf.Tensor) -> tf.Tensor:
        draws, noise = tf.numpy_function(draw, [some], (tf.float32, tf.float32))
        draws.set_shape((None, draws_of(policy)))
        noise.set_shape((None, *shape))
        return augment(batch, draws, policy, noise)

    places = tf.data.Dataset.from_tensor_slices(rows.astype(np.int64)).batch(BATCH)
    changed = tf.data.Dataset.zip((dataset, places)).map(change, num_parallel_calls=tf.data.AUTOTUNE)
    return changed.prefetch(2)


def _fingerprint(pixels: np.ndarray) -> str:
    digest = xxhash.xxh3_128(str(pixels.shape).encode())
    for start in range(0, len(pixels), 256):
        digest.update(np.ascontiguousarray(pixels[start : start + 256]).data)
    return digest.hexdigest()
