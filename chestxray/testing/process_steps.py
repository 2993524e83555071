"""The program of the fresh process: ``python -m chestxray.testing.process_steps [MODULE TO PRELOAD ...]``.

Reads questions from standard input, one JSON object per line, and writes an answer to each in the same
format. Modules are imported only when they are needed, since imports are among the things to be timed.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Audit events of the interpreter that indicate network access.
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")

#: Libraries that take seconds to import, which listing models would then take.
HEAVY = frozenset(
    {"jax", "keras", "keras_hub", "sklearn", "tensorflow", "timm", "torch", "torchvision", "transformers"}
)


def main() -> None:
    """Answer questions until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output that a plugin prints goes to standard error, not among the answers
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = STEPS[question.pop("step")](**question)
        # Third-party code may raise anything: the exception is the answer.
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        print(json.dumps({"error": "", **answer}), file=answers, flush=True)


def ready() -> dict[str, Any]:
    """Return an empty answer, which shows that the preloading has finished."""
    return {}


def importing(module: str) -> dict[str, Any]:
    """Import `module`; return ``seconds``, ``heavy`` (libraries that it imported), ``touched`` (network addresses),
    ``error``, ``missing`` (no such module).
    """
    touched: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in NETWORK:
            address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
            if not isinstance(address, str | bytes) or event.startswith("socket.get"):  # otherwise a local socket
                touched.append(str(address))
                raise OSError("the network must not be touched by an import")

    from chestxray.registry import deferred

    before = set(sys.modules)
    sys.addaudithook(watch)  # below Python's own functions, so that none bypasses it; it cannot be removed
    start = time.perf_counter() - _queued()
    try:
        with deferred("keras"):  # as where plugins are listed
            importlib.import_module(module)
        error, missing = "", False
    # A module may raise anything, even SystemExit.
    except (Exception, SystemExit) as raised:
        error = f"{type(raised).__name__}: {' '.join(str(raised).split())}"
        missing = isinstance(raised, ModuleNotFoundError) and f"{module}.".startswith(f"{raised.name}.")
    finally:
        seconds = time.perf_counter() - _queued() - start
        watching = False
        heavy = sorted(HEAVY & (set(sys.modules) - before))
        _forget(module)
    return {"seconds": seconds, "heavy": heavy, "touched": touched, "error": error, "missing": missing}


def reloading(folder: str) -> dict[str, Any]:
    """Load the model saved in `folder`; return its ``outputs`` for the images there."""
    import numpy as np

    _two_devices()
    import keras

    model = keras.saving.load_model(Path(folder) / "model.keras", compile=False, safe_mode=True)
    images = np.load(Path(folder) / "images.npy", allow_pickle=False)
    outputs = keras.ops.convert_to_numpy(model(images, training=False))
    return {"outputs": outputs.astype(float).tolist()}


def training(folder: str) -> dict[str, Any]:
    """Train the model saved in `folder` for one step on two replicas.

    Returns the ``loss``, the number of ``replicas``, and ``spoilt``: the paths of the variables that are not
    finite afterwards.
    """
    import numpy as np

    strategy = _two_devices()
    import keras
    import tensorflow as tf

    images = np.load(Path(folder) / "images.npy", allow_pickle=False)
    with strategy.scope():
        model = keras.saving.load_model(Path(folder) / "model.keras", compile=False, safe_mode=True)
        model.compile(
            optimizer=keras.optimizers.SGD(1e-3),
            loss="categorical_crossentropy",
            # Eager: tracing a deep network for a single step would take a minute or two, computing it a second.
            run_eagerly=True,
            jit_compile=False,
        )
    labels = np.eye(model.output_shape[-1], dtype=np.float32)[np.arange(len(images)) % model.output_shape[-1]]
    batch = tf.data.Dataset.from_tensor_slices((images, labels)).batch(len(images), drop_remainder=True)
    history = model.fit(batch, epochs=1, verbose=0)
    finite = {v.path: bool(np.isfinite(keras.ops.convert_to_numpy(v)).all()) for v in model.variables}
    return {
        "loss": str(history.history["loss"][0]),
        "spoilt": [path for path, whole in finite.items() if not whole],
        "replicas": strategy.num_replicas_in_sync,
    }


@functools.cache
def _two_devices() -> Any:
    """Return the strategy over two logical CPU devices; only one per process, since a second one crashes."""
    import tensorflow as tf

    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def _queued() -> float:
    """Return the seconds that this thread has waited for a processor, which are due to other load on the machine."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:  # not Linux: the waiting time is counted
        return 0.0


def _forget(module: str) -> None:
    """Unload the plugin: a saved model must load without it, and the next import must be timed anew."""
    # For the sources of chestxray itself, only the module is unloaded, not the package.
    package = module if module.startswith("chestxray.") else module.partition(".")[0]
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]
    if "keras" in sys.modules:
        custom = sys.modules["keras"].saving.get_custom_objects()
        for key in [k for k, v in custom.items() if f"{v.__module__}.".startswith(f"{package}.")]:
            del custom[key]


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    step.__name__: step for step in (ready, importing, reloading, training)
}

if __name__ == "__main__":
    main()
