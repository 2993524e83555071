"""Chooses whether a model is compiled with XLA: by timing on a GPU, never on a CPU unless the user asks.

Keras's default (3.10 to 3.15) is XLA on a GPU wherever it can be had, and never where there is only a
CPU. On a CPU that is right: over 17 architectures, choosing by timing was 1.02 times as fast in inference and 1.00
times in training, and timing a training step traces it twice more. On a GPU a few steps are timed each way, once for a
model, size, batch, device and kind of work, and the result is kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from chestxray.models import backend, startup
from chestxray.storage import cache_use, checked_json

if not backend.on_jax():
    import tensorflow as tf

log = logging.getLogger(__name__)

Work = Literal["inference", "head", "finetune", "full"]

#: Work shorter than this (seconds, without XLA) does not pay for compiling and timing the other way.
WORTHWHILE = 180.0
#: XLA must win by this much: below it, the difference is noise.
MARGIN = 1.05
#: Shortest measurement of one way, in seconds, and fewest steps.
SHORTEST, FEWEST = 0.5, 3


@dataclass(frozen=True)
class Timing:
    """Seconds a step without XLA and with it, and seconds that XLA takes to compile; ``xla`` is None
    where XLA cannot compile the model.
    """

    plain: float
    xla: float | None
    compiling: float

    def better(self, steps: float) -> bool:
        """Whether XLA is the faster way for so many steps, its compilation included."""
        if self.xla is None:
            return False
        return self.plain * steps > (self.xla * steps + self.compiling) * MARGIN


def choose(
    model: keras.Model,
    work: Work,
    batch: int,
    steps: int,
    cache: Path,
    *,
    wanted: Literal["auto", "on", "off"] = "auto",
) -> bool:
    """Return whether `model` should be compiled with XLA for `steps` steps of this `work` on `batch` images.

    ``auto`` measures on a GPU where there is enough work, and is off on a CPU and where TensorFlow is deterministic;
    before, after and without a
    measurement the model's variables are the same. `model` is compiled anew by the measurement. XLA is off under a
    strategy of several devices, which it does not work with (keras issue 18627). JAX compiles with nothing else.
    """
    if backend.on_jax():
        return True
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return False
    if wanted != "auto":
        return wanted == "on"
    # A choice by timing depends on the clock, and XLA's sums are taken in another order.
    if not on_gpu() or startup.is_deterministic():
        return False
    known = _read(_file(model, work, batch, cache))
    if known is None:
        plain, _ = timed(model, work, batch, jit=False)
        if plain * steps < WORTHWHILE:
            return False
        log.info("Timing a few steps with and without XLA (%s) ...", work)
        known = remembered(model, work, batch, cache, plain=plain)
    chosen = known.better(steps)
    if known.xla is None:
        log.info("XLA cannot compile this model; it is off.")
    else:
        log.info(
            "XLA is %s: %.0f images/s with it, %.0f without (%s).",
            "on" if chosen else "off", batch / known.xla, batch / known.plain, work,
        )  # fmt: skip
    return chosen


def on_gpu() -> bool:
    """Whether the devices chosen for the current strategy are GPUs."""
    strategy = tf.distribute.get_strategy()
    if tf.distribute.has_strategy():
        return any("GPU" in device for device in strategy.extended.worker_devices)
    return bool(tf.config.list_logical_devices("GPU"))


def remembered(model: keras.Model, work: Work, batch: int, cache: Path, *, plain: float | None = None) -> Timing:
    """Return the timing of this work from the cache; what is not there is measured and kept."""
    file = _file(model, work, batch, cache)
    with cache_use.held(file):
        known = _read(file)
        if known is None:
            if file.is_file():
                log.warning("Damaged in the cache: %s. It is measured again.", file)
            known = measure(model, work, batch, plain=plain)
            checked_json.write(file, asdict(known))
    return known


def measure(model: keras.Model, work: Work, batch: int, *, plain: float | None = None) -> Timing:
    """Time `work` both ways; `plain` is taken where it is known already."""
    if plain is None:
        plain, _ = timed(model, work, batch, jit=False)
    try:
        xla, compiling = timed(model, work, batch, jit=True)
    except (tf.errors.OpError, ValueError, TypeError, NotImplementedError) as error:
        # Whatever XLA has no kernel for; without it the model has just run.
        log.debug("XLA failed: %s", error)
        return Timing(plain, None, 0.0)
    return Timing(plain, xla, compiling)


def timed(model: keras.Model, work: Work, batch: int, *, jit: bool) -> tuple[float, float]:
    """Seconds a step, the fastest of several, and seconds of the first one beyond that.

    The model's variables are put back afterwards.
    """
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    generator = np.random.default_rng(0)
    inputs = [generator.uniform(0, 255, (batch, *given.shape[1:])).astype(np.float32) for given in model.inputs]
    step = _step(model, work, inputs, jit)
    try:
        start = time.perf_counter()
        step()
        first = time.perf_counter() - start
        taken: list[float] = []
        while len(taken) < FEWEST or sum(taken) < SHORTEST:
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
    finally:
        for variable, value in zip(model.variables[: len(before)], before, strict=True):
            variable.assign(value)
        model.train_function = model.predict_function = None
    return min(taken), max(0.0, first - min(taken))


def _step(model: keras.Model, work: Work, inputs: list[np.ndarray], jit: bool) -> Callable[[], Any]:
    given = inputs if len(inputs) > 1 else inputs[0]
    if work == "inference":
        model.compile(jit_compile=jit)
        return lambda: model.predict_on_batch(given)
    classes = model.output_shape[-1]
    labels = np.eye(classes, dtype=np.float32)[np.arange(len(inputs[0])) % classes]
    model.compile(optimizer="adamw", loss="categorical_crossentropy", jit_compile=jit)
    return lambda: model.train_on_batch(given, labels)


def _file(model: keras.Model, work: str, batch: int, cache: Path) -> Path:
    return cache / "jit" / f"{_key(model, work, batch)}.json"


def _key(model: keras.Model, work: str, batch: int) -> str:
    """Names a measurement by the graph, what is trained of it, the batch, the device and the versions."""
    layers = [
        (layer.__class__.__name__, str(getattr(layer, "dtype_policy", "")), layer.trainable, str(layer.output.shape))
        for layer in model.layers
        if not isinstance(layer.output, (list, tuple, dict))
    ]
    facts = [layers, work, batch, keras.__version__, tf.__version__, _device()]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=12).hexdigest()


def _device() -> list[Any]:
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a file of ours
            processor = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        processor = platform.processor()
    return [names, processor, os.cpu_count()]


def _read(file: Path) -> Timing | None:
    content = checked_json.read(file)
    return None if content is None else Timing(**content)
