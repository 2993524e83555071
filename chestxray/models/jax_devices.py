"""The devices that a run computes on where Keras computes with JAX, on one machine or on several.

Several devices share every batch by `keras.distribution.DataParallel`: each holds all variables, and gradients and the
statistics of batch normalisation are those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import keras
import numpy as np

from chestxray.errors import InputError


@dataclass(frozen=True)
class Replicas:
    """What `chestxray.models.devices.strategy` returns where Keras computes with JAX: ``devices`` are those of all
    hosts.
    """

    devices: tuple[Any, ...]

    @property
    def num_replicas_in_sync(self) -> int:
        """The number of devices that share a batch."""
        return len(self.devices)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Variables that are made in the block lie on all devices."""
        yield


#: The devices of the process, set by `strategy`.
_devices: tuple[Any, ...] = ()


def strategy(devices: str) -> Replicas:
    """Make all later work of this process compute on `devices`, as `chestxray.models.devices.strategy` describes them.
    Where there are several hosts, each names its own.

    Raises:
        InputError: an unknown device, with what there is.
    """
    global _devices
    own = _chosen(devices)
    kinds = {device.id for device in own}
    if jax.process_count() > 1:
        if len(own) < len(jax.local_devices(backend=own[0].platform)):
            raise InputError(
                f"With several hosts every device of each is used: devices must be auto, cpu or gpu. "
                f"Received: {devices!r}."
            )
        found = tuple(jax.devices(own[0].platform))
        counts = [sum(device.process_index == host for device in found) for host in range(jax.process_count())]
        if len(set(counts)) > 1:
            raise InputError(f"All hosts must have as many devices. Received: {', '.join(map(str, counts))}.")
    else:
        found = tuple(device for device in jax.devices(own[0].platform) if device.id in kinds)
    _devices = tuple(own)
    jax.config.update("jax_default_device", own[0])
    shared = None
    if len(found) > 1:
        names = [f"{device.platform}:{device.id}" for device in found]
        shared = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    keras.distribution.set_distribution(shared)
    return Replicas(found)


def chosen(devices: str) -> list[str]:
    """Return the names of the chosen devices of this host, such as ``gpu:0``. Raises as `strategy`."""
    return [f"{device.platform}:{device.id}".upper() for device in _chosen(devices)]


def local() -> tuple[Any, ...]:
    """Return the devices of this host that the run computes on."""
    return _devices or (jax.local_devices()[0],)


def _chosen(devices: str) -> list[Any]:
    present = {"GPU": _present("gpu"), "CPU": _present("cpu")}
    if devices == "auto":
        # Several CPU devices stand in for GPUs in tests only; nobody wants them unasked, but every host has its own.
        return present["GPU"] or (present["CPU"] if jax.process_count() > 1 else present["CPU"][:1])
    kind, _, numbers = devices.upper().partition(":")
    listing = ", ".join(f"{k.lower()}:{i}" for k, found in present.items() for i in range(len(found)))
    wanted = [number.strip() for number in numbers.split(",")] if numbers else []
    if present.get(kind) and not numbers:
        return present[kind] if kind == "GPU" or jax.process_count() > 1 else present[kind][:1]
    known = {str(i): device for i, device in enumerate(present.get(kind, []))}
    if not wanted or not set(wanted) <= set(known) or len(set(wanted)) < len(wanted):
        raise InputError(f"devices must be auto, cpu, gpu or some of {listing}. Received: {devices!r}.")
    return [known[number] for number in wanted]


def _present(kind: str) -> list[Any]:
    try:
        return list(jax.local_devices(backend=kind))
    except RuntimeError:  # JAX has no such platform here
        return []


@contextmanager
def alone() -> Iterator[None]:
    """Within the block Keras makes variables on this host's first device alone, whatever devices share batches."""
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def value(variable: Any) -> np.ndarray:
    """Return the value of a Keras variable of all hosts, of which each has a copy."""
    held = variable.value
    return np.asarray(held.addressable_data(0) if isinstance(held, jax.Array) else held)
