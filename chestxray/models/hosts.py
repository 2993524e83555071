"""The hosts, each a process, that share one training where Keras computes with JAX."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import re
import signal
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chestxray.errors import InputError, TrainingError, first_line
from chestxray.models import backend, startup

log = logging.getLogger(__name__)

#: Seconds without a sign of life after which a host counts as lost, and seconds that all may take to arrive.
LOST, ARRIVE = 30, 600
#: Seconds between two looks for lost hosts.
LOOK = 5
#: Seconds that host 0, at the end, gives the others to take leave; it takes milliseconds.
GRACE = 2
#: Bytes that are sent to the other hosts at once.
PART = 2**26


@dataclass(frozen=True)
class Hosts:
    """``count`` hosts, of which this process is number ``index``, from 0; ``coordinator``, host:port, is an address
    that host 0 opens and the others reach.
    """

    count: int
    index: int
    coordinator: str


_joined: Hosts | None = None


def count() -> int:
    """Return how many hosts share the training; 1 where none were joined."""
    return _joined.count if _joined else 1


def index() -> int:
    """Return this host's number, from 0."""
    return _joined.index if _joined else 0


def share(rows: int) -> slice:
    """Return this host's rows of a batch of `rows`, a multiple of the number of hosts."""
    each = rows // count()
    return slice(index() * each, (index() + 1) * each)


def of_options(hosts: str | None, host_index: int | None, coordinator: str | None) -> Hosts | None:
    """Return the hosts of a command's options; None: this one alone. ``auto`` takes them from the variables of SLURM
    (a task for each machine), or from ``WORLD_SIZE``, ``RANK``, ``MASTER_ADDR`` and ``MASTER_PORT``, as Ray Train and
    torchrun set them.

    Raises:
        InputError: numbers that do not fit together, or no such variables.
    """
    if hosts is None:
        if host_index is not None or coordinator is not None:
            raise InputError("--host-index and --coordinator need --hosts, the number of hosts.")
        return None
    if hosts == "auto":
        if host_index is not None or coordinator is not None:
            raise InputError("With --hosts auto, --host-index and --coordinator come from the environment.")
        return _of_environment(os.environ)
    if not hosts.isdecimal() or int(hosts) < 1:
        raise InputError(f"hosts must be a whole number from 1, or auto. Received: {hosts!r}.")
    if int(hosts) == 1:
        return None
    if host_index is None or coordinator is None:
        raise InputError(
            f"--hosts {hosts} needs --host-index, from 0 to {int(hosts) - 1}, and --coordinator HOST:PORT."
        )
    return _checked(Hosts(int(hosts), host_index, coordinator))


def _of_environment(variables: Mapping[str, str]) -> Hosts | None:
    slurm = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST")
    ranks = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
    try:
        if all(name in variables for name in slurm):
            # The first of node1, node1,node2 and node[01-04,7],other: host 0 is on it.
            head, numbers = re.fullmatch(r"([^,\[]+)(?:\[(\w+))?.*", variables["SLURM_STEP_NODELIST"]).groups()  # type: ignore[union-attr]
            # Steps of other jobs on the node take other ports.
            port = 61440 + int(variables["SLURM_JOB_ID"]) % 4096
            found = Hosts(
                int(variables["SLURM_NTASKS"]), int(variables["SLURM_PROCID"]), f"{head}{numbers or ''}:{port}"
            )
        elif all(name in variables for name in ranks):
            address = f"{variables['MASTER_ADDR']}:{variables['MASTER_PORT']}"
            found = Hosts(int(variables["WORLD_SIZE"]), int(variables["RANK"]), address)
        else:
            raise InputError(f"--hosts auto needs the variables {', '.join(slurm)} (srun), or {', '.join(ranks)}.")
    except (ValueError, AttributeError) as error:
        raise InputError(f"--hosts auto found variables that it cannot read: {first_line(error)}.") from error
    return None if found.count == 1 else _checked(found)


def _checked(hosts: Hosts) -> Hosts:
    if not 0 <= hosts.index < hosts.count:
        raise InputError(f"host-index must be from 0 to {hosts.count - 1}. Received: {hosts.index}.")
    host, _, port = hosts.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"coordinator must be HOST:PORT, an address of host 0. Received: {hosts.coordinator!r}.")
    return hosts


def join(hosts: Hosts) -> None:
    """Wait for all `hosts`, and connect this process to them. To be called before JAX computes anything.

    From then on a thread looks for lost hosts. Where one is lost it says so in a line and ends this process.

    Raises:
        InputError: Keras does not compute with JAX.
        TrainingError: they were not all there within `ARRIVE` seconds.
    """
    global _joined
    if not backend.on_jax():
        raise InputError("Several hosts share a training with JAX alone. Allowed: --backend jax.")
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Without it JAX's C++ ends the process whichever host is lost, past anything that could say so in a line.
    jax.config.update("jax_enable_recoverability", True)
    log.info("Host %d of %d: waiting for all at %s ...", hosts.index, hosts.count, hosts.coordinator)
    try:
        jax.distributed.initialize(
            hosts.coordinator,
            hosts.count,
            hosts.index,
            # Every device of the machine, whatever SLURM's variables would make of it.
            cluster_detection_method="deactivate",
            initialization_timeout=ARRIVE,
            heartbeat_timeout_seconds=LOST,
            shutdown_timeout_seconds=LOST,
        )
        with startup.quiet(1), startup.quiet():
            jax.devices()
            ctypes.CDLL(None).fflush(None)  # Gloo's greeting waits in C's buffer
    except RuntimeError as error:
        raise TrainingError(
            f"The {hosts.count} hosts did not all meet at {hosts.coordinator} within {ARRIVE} s: {first_line(error)}."
        ) from error
    _joined = hosts
    _left.clear()
    _catch_abort()
    threading.Thread(target=_watch, args=(hosts,), daemon=True, name="chestxray-hosts").start()


@contextmanager
def joined(hosts: Hosts | None) -> Iterator[None]:
    """Within the block this process is one of `hosts`, if there are several: see `join`. A host that fails ends without
    waiting for the others, which find that it is lost.

    Raises:
        InputError, TrainingError: as `join`.
    """
    if hosts is None:
        yield
        return
    join(hosts)
    try:
        with reporting():
            yield
    except BaseException:
        _left.set()
        raise


def leave() -> None:
    """Wait until all hosts have come to this point, and go on as one host alone."""
    global _joined
    if _joined is None:
        return
    import jax
    import keras
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("chestxray: trained")
    _left.set()
    if _joined.index == 0:
        # JAX aborts a host that takes leave of a store that is gone, and the store is host 0's.
        time.sleep(GRACE)
    else:
        _taking_leave.set()
    jax.distributed.shutdown()
    _taking_leave.clear()
    keras.distribution.set_distribution(None)
    _joined = None


_left = threading.Event()
#: Set while a host that has done its work takes leave of the others.
_taking_leave = threading.Event()


def _watch(hosts: Hosts) -> None:
    """Give a sign of life every `LOOK` seconds, and end the process where another host gave none for `LOST`."""
    from jax._src import distributed

    client = distributed.global_state.client
    assert client is not None
    seen = {number: ("", time.monotonic()) for number in range(hosts.count) if number != hosts.index}
    beat, store_answered = 0, time.monotonic()
    while not _left.wait(LOOK):
        beat += 1
        try:
            client.key_value_set(f"chestxray/alive/{hosts.index}", str(beat), allow_overwrite=True)
            for number, (before, when) in seen.items():
                now = str(dict(client.key_value_dir_get("chestxray/alive/")).get(f"chestxray/alive/{number}", ""))
                seen[number] = (now, time.monotonic() if now != before else when)
            store_answered = time.monotonic()
        except Exception as error:  # what gRPC raises has no common root
            log.debug("The store of host 0 does not answer: %s", error)
            if time.monotonic() - store_answered > LOST and not _left.is_set():
                end_lost([0])
        lost = [number for number, (_, when) in seen.items() if time.monotonic() - when > LOST]
        if lost and not _left.is_set():
            end_lost(lost)


def end_lost(numbers: list[int]) -> None:
    """Say that these hosts are lost, and end the process: what waits for them in JAX cannot be interrupted."""
    if _left.is_set():
        return  # nobody waits for anybody any more
    names = " and ".join(map(str, numbers)) if numbers else ""
    what = f"Host {names} is lost" if names else "Another host is lost"
    log.error("%s: the training cannot go on without it. Start all hosts again with --resume.", what)
    logging.shutdown()
    os._exit(TrainingError.exit_code)


def _catch_abort() -> None:
    """Say the same where C++ ends the process: JAX aborts it where host 0, which keeps the list of all, is silent,
    and a function of Python that it could call instead makes it abort as well (jaxlib 0.12).
    """
    # Not `signal.signal`, whose functions run once C++ has returned, which it does not.
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)

    @kind
    def aborted(number: int) -> None:
        end_lost([0])
        os._exit(0 if _taking_leave.is_set() else 128 + number)

    _kept_alive.append(aborted)
    ctypes.CDLL(None).signal(int(signal.SIGABRT), aborted)


#: Functions that C calls, which Python must not free.
_kept_alive: list[object] = []


@contextmanager
def reporting() -> Iterator[None]:
    """Within the block an operation of all hosts that failed since one is gone ends the process as a lost host does."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # JAX raises either for the same failure
        if _joined is None or not re.search(r"(?i)gloo|connection|peer|NCCL|coordination|UNAVAILABLE", str(error)):
            raise
        log.debug("A collective operation failed: %s", error)
        end_lost([])


def same(what: str, value: str) -> None:
    """Raise `InputError` on all hosts unless they all have the same `value`; `what` names it in the message."""
    if _joined is None:
        return
    import xxhash

    digest = np.frombuffer(xxhash.xxh3_128_digest(value.encode()), np.uint8)
    every = gathered(digest[np.newaxis])
    different = [number for number in range(count()) if (every[number] != every[0]).any()]
    if different:
        raise InputError(
            f"All hosts must have the same {what}. Received: another than host 0 on {', '.join(map(str, different))}."
        )


def gathered(rows: np.ndarray) -> np.ndarray:
    """Return the `rows` (own, ...) of all hosts in the order of the hosts; each may have another number of them."""
    if _joined is None:
        return rows
    from jax.experimental import multihost_utils

    counts = np.ravel(multihost_utils.process_allgather(np.array([len(rows)], np.int32)))
    padded = np.zeros((counts.max(), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    every = np.reshape(multihost_utils.process_allgather(padded), (count(), *padded.shape))
    return np.concatenate([part[:number] for part, number in zip(every, counts, strict=True)])


def of_first(values: np.ndarray) -> np.ndarray:
    """Return host 0's `values`, an array that has the same shape and type on all hosts."""
    if _joined is None:
        return values
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(values))


@contextmanager
def own_folder(folder: Path, names: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the run's folder: on host 0 `folder` itself, on each other one of its own, removed afterwards, with a copy
    of what host 0's has under `names`, files and folders. So only host 0 needs to reach `folder`.
    """
    if _joined is None:
        yield folder
        return
    packed = _sent(_packed(folder, names) if index() == 0 else b"")
    if index() == 0:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix=f"chestxray-host-{index()}-") as made:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            archive.extractall(made)
        yield Path(made)


def _packed(folder: Path, names: tuple[str, ...]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            path = folder / name
            for file in sorted(path.rglob("*")) if path.is_dir() else [path] * path.is_file():
                if file.is_file():
                    archive.write(file, file.relative_to(folder))
    return held.getvalue()


def _sent(content: bytes) -> bytes:
    """Return host 0's `content` on every host."""
    size = of_first(np.array(divmod(len(content), 2**30), np.int32))
    length = int(size[0]) * 2**30 + int(size[1])
    parts = []
    for start in range(0, length, PART):
        part = np.zeros(min(PART, length - start), np.uint8)
        if index() == 0:
            part[:] = np.frombuffer(content[start : start + PART], np.uint8)
        parts.append(of_first(part).tobytes())
    return b"".join(parts)
