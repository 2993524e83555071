"""Asks TensorFlow, Keras, JAX and the other compiled packages, each in a process of its own with a deadline.

A broken driver ends the process that asks, or never answers; a package built for another processor ends it by SIGILL.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

#: Steps of each process, in order: what was told before a step that ends the process is kept.
PROBES = {"tensorflow": ("tensorflow", "keras"), "jax": ("jax",), "packages": ("packages",)}
#: Packages with compiled parts that every command may need, and ones that an extra brings.
_COMPILED = ("numpy", "PIL", "pandas", "scipy.ndimage", "sklearn", "onnxruntime", "pyarrow", "h5py", "matplotlib")
_PROGRAM = "import sys; sys.path[:] = {path!r}; from chestxray.cli.diagnosis import probes; probes.answer({steps!r})"


@contextmanager
def started(seconds: float) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start the probes, and yield what waits for them, until `seconds` from now, and returns their answers: by step,
    a dict with ``error``, ``""`` where all is well.
    """
    until = time.monotonic() + seconds
    running: list[tuple[list[str], subprocess.Popen[bytes], IO[bytes]]] = []
    try:
        for steps in PROBES.values():
            chosen = [step for step in steps if step == "packages" or importlib.util.find_spec(step) is not None]
            running += [(chosen, *_start(chosen))] if chosen else []
        yield lambda: {step: found for process in running for step, found in _answers(*process, until)}
    finally:
        for _, process, output in running:
            _end(process)
            output.close()


def _start(steps: list[str]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `started`
    root = str(Path(__file__).parents[3])
    code = _PROGRAM.format(path=[root, *(entry for entry in sys.path if entry != root)], steps=steps)
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        # What a driver starts can be ended with it, and Ctrl-C reaches us alone.
        start_new_session=True,
    )
    return process, output


def _answers(
    steps: list[str], process: subprocess.Popen[bytes], output: IO[bytes], until: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        status: int | None = process.wait(max(until - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        status = None
        _end(process)
    output.seek(0)
    # Nothing is told where not even Python starts.
    begun = next(iter(steps))
    for line in output:
        told = json.loads(line)
        if "begun" in told:
            begun = told["begun"]
            continue
        yield told.pop("step"), told
        begun = ""
    if begun:
        yield begun, {"error": _ending(status)}


def _ending(status: int | None) -> str:
    if status is None:
        return "it did not answer in time"
    return f"it ended its process by {signal.Signals(-status).name}" if status < 0 else f"it ended with status {status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def answer(steps: list[str]) -> None:
    """In the other process: write a line of JSON before and after each step."""
    pipe = os.dup(1)
    # What the libraries print is no answer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for step in steps:
        _tell(pipe, {"begun": step})
        try:
            found = {"error": "", **_STEPS[step]()}
        except BaseException as error:  # a driver or another's package: whatever it raises is its answer
            found = {"error": f"{type(error).__name__}: {str(error).strip()[:600]}"}
        _tell(pipe, {"step": step, **found})
    os._exit(0)


def _tell(pipe: int, what: dict[str, Any]) -> None:
    os.write(pipe, json.dumps(what).encode() + b"\n")


def _tensorflow() -> dict[str, Any]:
    import tensorflow as tf

    devices = []
    for device in tf.config.list_physical_devices():
        details = tf.config.experimental.get_device_details(device) if device.device_type == "GPU" else {}
        devices.append(f"{device.device_type} {details.get('device_name', '')}".strip())
    # A device that is listed and cannot compute is the commonest broken driver.
    total = float(tf.reduce_sum(tf.matmul(tf.ones((8, 8)), tf.ones((8, 8)))))
    return {"devices": devices, "computes": total == 512, "cuda": bool(tf.test.is_built_with_cuda())}


def _keras() -> dict[str, Any]:
    import keras

    return {"backend": keras.backend.backend(), "computes": float(keras.ops.sum(keras.ops.ones((8, 8)))) == 64}


def _jax() -> dict[str, Any]:
    import jax

    devices = [f"{device.platform} {device.device_kind}" for device in jax.devices()]
    return {"devices": devices, "computes": float(jax.numpy.ones((8, 8)).sum()) == 64}


def _packages() -> dict[str, Any]:
    broken = {}
    for name in _COMPILED:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            continue
        try:
            importlib.import_module(name)
        except BaseException as error:  # as in `answer`
            broken[name] = f"{type(error).__name__}: {str(error).strip()[:300]}"
    return {"broken": broken}


_STEPS: dict[str, Callable[[], dict[str, Any]]] = {
    "tensorflow": _tensorflow,
    "keras": _keras,
    "jax": _jax,
    "packages": _packages,
}
