"""Chooses where parts are done: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from chestxray.errors import InputError
from chestxray.execution.parts import GIB, Outcome, Part


@dataclass(frozen=True)
class Executor:
    """Where parts are done, and how many of them, ``workers``, at a time; None: as many as devices and memory allow.

    ``address`` is that of a Ray cluster, None for the one of ``$RAY_ADDRESS`` or a new one on this machine. A part
    asks for ``memory`` bytes; None: for what its kind of work usually needs.
    """

    kind: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: int | None = None
    memory: int | None = None

    def run(self, parts: Sequence[Part]) -> Generator[Outcome]:
        """Do `parts` and yield each when it has ended, in any order; ends all workers if it is closed.

        Raises:
            MissingPackageError: Ray is not installed.
            WorkerError: the Ray cluster cannot be reached.
        """
        if self.kind == "ray":
            from chestxray.execution import ray_cluster

            return ray_cluster.run(parts, self.address, self.workers)
        from chestxray.execution import local

        return local.run(parts, self.workers)


def chosen(executor: str | None, workers: int | None = None, memory: float | None = None) -> Executor | None:
    """Return what ``--executor``, ``--workers`` and ``--part-memory`` (GB) choose; None if none of them is given.

    >>> chosen("ray://head:10001").address, chosen("ray:10.0.0.1:6379").address, chosen(None, 2).kind
    ('ray://head:10001', '10.0.0.1:6379', 'local')

    Raises:
        InputError: an unknown executor, or a number below 1.
    """
    if executor is None and workers is None and memory is None:
        return None
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1. Received: {workers}.")
    if memory is not None and memory <= 0:
        raise InputError(f"part_memory must be above 0. Received: {memory:g}.")
    needed = None if memory is None else max(1, int(memory * GIB))
    given = "local" if executor is None else executor
    if given == "local":
        return Executor("local", None, workers, needed)
    address = re.fullmatch(r"ray(?:(?P<client>://[^/:\s]+:\d+)|:(?P<node>[^/:\s]+:\d+))?", given)
    if address is None:
        raise InputError(
            "executor must be local, ray (a cluster on this machine), ray:HOST:PORT (of a cluster that this machine "
            f"is a node of) or ray://HOST:PORT (its client server). Received: {given!r}."
        )
    return Executor("ray", given if address["client"] else address["node"], workers, needed)
