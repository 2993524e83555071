"""The devices a run computes on, and the strategy over them."""

from __future__ import annotations

import functools

import tensorflow as tf

from chestxray.errors import InputError


def strategy(devices: str) -> tf.distribute.Strategy:
    """MirroredStrategy over several devices, the default strategy on one.

    `devices`: ``auto`` (all GPUs, else the CPU), ``cpu``, ``gpu`` (all), or numbered ones such as
    ``gpu:0,1``. The same devices give the same MirroredStrategy.

    Raises:
        InputError: an unknown device, with what there is.
    """
    names = chosen(devices)
    if len(names) > 1:
        return _mirrored(tuple(names))
    if devices == "auto":
        return tf.distribute.get_strategy()
    return tf.distribute.OneDeviceStrategy(names[0])


@functools.cache
def _mirrored(names: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    # One for all trainings of a process: a second one crashes in TensorFlow's collectives.
    return tf.distribute.MirroredStrategy(list(names))


def chosen(devices: str) -> list[str]:
    """TensorFlow's names of the chosen devices, such as ``GPU:0``. Raises as `strategy`."""
    present = {kind: len(tf.config.list_logical_devices(kind)) for kind in ("GPU", "CPU")}
    if devices == "auto":
        kind = "GPU" if present["GPU"] else "CPU"
        # Logical CPU devices stand in for GPUs in tests only; nobody wants them unasked.
        return [f"{kind}:{i}" for i in range(present[kind] if kind == "GPU" else 1)]
    kind, _, numbers = devices.upper().partition(":")
    listing = ", ".join(f"{k.lower()}:{i}" for k, n in present.items() for i in range(n))
    wanted = [number.strip() for number in numbers.split(",")] if numbers else []
    if kind in present and not numbers and present[kind]:
        return [f"{kind}:{i}" for i in range(present[kind] if kind == "GPU" else 1)]
    known = {str(i) for i in range(present.get(kind, 0))}
    if not wanted or not set(wanted) <= known or len(set(wanted)) < len(wanted):
        raise InputError(f"devices must be auto, cpu, gpu or some of {listing}. Received: {devices!r}.")
    return [f"{kind}:{number}" for number in wanted]
