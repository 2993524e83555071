"""Parts done by the nodes of a Ray cluster: one that is running, or one that is started for them on this machine.

Ray places each part on a node with the GPUs and the memory it asks for, begins it again on another node if its own
is lost, and brings what its worker prints to this terminal, after the name of the part.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from chestxray._version import VERSION
from chestxray.errors import InputError, WorkerError, first_line, require
from chestxray.execution import worker
from chestxray.execution.parts import RETRIES, Answer, Outcome, Part

log = logging.getLogger(__name__)

#: What Ray reads when it is imported: no report of its use to its makers, no line of a part left out as repeated, and
#: no colours in a file.
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}


def run(parts: Sequence[Part], address: str | None, workers: int | None) -> Generator[Outcome]:
    """Do `parts` and yield each when it has ended.

    `address`: ``host:port`` of the cluster that this machine is a node of, or ``ray://host:port`` of Ray's client
    server; None: ``$RAY_ADDRESS``, else a cluster is started on this machine. `workers`: parts at a time; default: one
    for each GPU, or without GPUs as many as keep the processors of each node busy.

    Raises:
        MissingPackageError: Ray is not installed.
        WorkerError: the cluster cannot be reached.
    """
    require("--executor ray", "ray")
    with _connected(address) as ray:
        task: Any = ray.remote(max_calls=1, max_retries=RETRIES, num_cpus=1, scheduling_strategy="SPREAD")(_call)
        waiting, running = deque(parts), dict[Any, Part]()
        try:
            while waiting or running:
                nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
                while waiting and len(running) < (workers or _most(nodes, waiting[0])):
                    part = waiting.popleft()
                    asked = {"num_gpus": min(part.gpus, _largest(nodes, "GPU")), "name": part.name}
                    # More than any node has would wait for ever.
                    asked["memory"] = min(part.memory, _largest(nodes, "memory"))
                    backend = os.environ.get("KERAS_BACKEND", "")
                    given = part.function, dict(part.arguments), log.getEffectiveLevel(), backend, VERSION
                    running[task.options(**asked).remote(*given)] = part
                # The nodes are counted again every few seconds: some may have come.
                for done in ray.wait(list(running), timeout=5)[0]:
                    yield Outcome(running.pop(done), _answer(ray, done))
        finally:
            for left in running:
                ray.cancel(left, force=True)


def _call(function: Any, arguments: dict[str, Any], level: int, backend: str, version: str) -> Answer:
    """Do a part, on a node, with the driver's backend of Keras; the name of the part stands before what it prints.

    `version`: the driver's, which the node must have.
    """
    if version != VERSION:
        node = platform.node()
        return Answer(
            error=InputError(f"{node} has chestxray {VERSION} and the driver {version}; every node needs the driver's.")
        )
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    worker.speak(handler, level)
    return worker.call(function, arguments)


def _answer(ray: Any, done: Any) -> Answer:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        return Answer(traceback=str(error))
    except ray.exceptions.RayError as error:
        return Answer(error=WorkerError(f"its worker died each time. Ray says: {first_line(error)}."))


def _largest(nodes: Sequence[dict[str, float]], what: str) -> int:
    return int(max((node.get(what, 0) for node in nodes), default=0))


def _most(nodes: Sequence[dict[str, float]], part: Part) -> int:
    """Return how many parts such as `part` to do at a time."""
    gpus = min(part.gpus, _largest(nodes, "GPU"))
    if gpus:
        return max(1, sum(int(node.get("GPU", 0)) // gpus for node in nodes))
    # A node without processors, such as the head of many clusters, does no parts.
    able = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    return max(1, sum(max(1, processors // part.processors) for processors in able))


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Yield the module ``ray``, connected; a connection of the caller's own is used, and left as it is."""
    for name, value in _SETTINGS.items():
        os.environ[name] = value
    import ray

    if ray.is_initialized():
        yield ray
        return
    chosen = address or os.environ.get("RAY_ADDRESS") or "local"
    log.info("Starting Ray on this machine ..." if chosen == "local" else f"Connecting to Ray at {chosen} ...")
    options: dict[str, Any] = {"include_dashboard": False} if chosen == "local" else {}
    try:
        _require_listener(chosen)
        ray.init(chosen, log_to_driver=True, logging_level=logging.WARNING, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise WorkerError(
            f"Ray cannot be reached at {chosen}: {first_line(error)}. Allowed: ray (starts one here), ray:HOST:PORT of "
            "a cluster that this machine is a node of, or ray://HOST:PORT of its client server."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise `OSError` if nothing listens at ``[ray://]host:port``; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host, int(port)), timeout=10):
            pass
