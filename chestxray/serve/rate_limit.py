"""Limits the requests of one client per minute.

Flask-Limiter is not used: its windows allow twice the rate at their border or keep every request in memory, where a
token bucket needs two numbers a client; its storage in memory does not bound the number of clients; and a client of
IPv6 must count by its network.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from chestxray.serve.errors import RequestProblem

#: Most clients that are remembered; beyond that, those not seen for longest are forgotten.
CLIENTS = 10_000


def client_of(address: str) -> str:
    """Return the key of a client from its address as a socket or a proxy gives it: ``192.0.2.7``, ``192.0.2.7:5000``,
    ``2001:db8::1``, ``[2001:db8::1]:5000``. For IPv6 it is the /64 network, which is what one client gets.

    >>> client_of("[2001:db8::1]:5000")
    '2001:db8::/64'
    """
    text = address.strip().strip('"')
    if "]" in text:
        text = text.lstrip("[").partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


class Limit:
    """A token bucket for each client, of ``per_minute`` requests, refilled at that rate; 0: no limit."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = float(per_minute)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Count a request of `client`.

        Raises:
            RequestProblem: too many requests (429).
        """
        if not self._per_minute:
            return
        with self._lock:
            left = self._taken(client)
        if left < 1:
            wait = math.ceil((1 - left) * 60 / self._per_minute)
            message = f"At most {self._per_minute:g} images a minute. Try again in {wait} seconds."
            raise RequestProblem(429, "too_often", message, retry_after=wait)

    def _taken(self, client: str) -> float:
        """Take one request from the bucket of `client`, if there is one; return what was in it before."""
        now = self._clock()
        left = self._refilled(*self._buckets.pop(client, (self._per_minute, now)), now)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return left

    def _refilled(self, left: float, seen: float, now: float) -> float:
        return min(self._per_minute, left + max(0.0, now - seen) * self._per_minute / 60)


#: Seconds that a process waits for the others' lock.
PATIENCE = 5.0


class SharedLimit(Limit):
    """A `Limit` of several processes together: the buckets are in the SQLite database `path`, which must be in memory
    (``/dev/shm``) to be fast. A process that is killed releases its lock.

    Clients are stored as hashes keyed with `key`, which the processes share and nobody keeps. The clock must be the
    same in all processes, as that of `time.monotonic` is.
    """

    def __init__(self, per_minute: int, path: Path, key: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(per_minute, clock)
        self._key = key
        self._database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        until = time.monotonic() + PATIENCE
        while not self._prepared():
            if time.monotonic() > until:
                raise OSError(f"{path} is locked by another process.")
            time.sleep(0.01)

    def _prepared(self) -> bool:
        """Make the table; False while another process makes it, for which SQLite does not wait in all cases."""
        try:
            # What a crash of the machine would lose is of no use after it.
            self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS buckets (client BLOB PRIMARY KEY, remaining REAL, seen REAL) WITHOUT ROWID"
            )
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True

    def _taken(self, client: str) -> float:
        hashed = hashlib.blake2b(client.encode("utf-8", "replace"), key=self._key, digest_size=16).digest()
        try:
            return self._counted(hashed)
        except sqlite3.OperationalError as error:
            # Locked for five seconds, or no room left in the folder: what cannot be counted is not answered.
            raise RequestProblem(503, "busy", "Too many requests at once. Try again.", retry_after=5) from error

    def _counted(self, client: bytes) -> float:
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        try:
            # Read after the lock is held, so that no other process has counted with a later time.
            now = self._clock()
            found = execute("SELECT remaining, seen FROM buckets WHERE client = ?", (client,)).fetchone()
            remaining, seen = found or (self._per_minute, now)
            left = self._refilled(remaining, seen, now)
            kept = left - 1 if left >= 1 else left
            execute("INSERT OR REPLACE INTO buckets VALUES (?, ?, ?)", (client, kept, now))
            if found is None:
                # After a minute a bucket is full again, as that of a client that was never seen.
                execute("DELETE FROM buckets WHERE seen < ?", (now - 60,))
                (count,) = execute("SELECT count(*) FROM buckets").fetchone()
                if count > CLIENTS:
                    oldest = "SELECT client FROM buckets ORDER BY seen LIMIT ?"
                    execute(f"DELETE FROM buckets WHERE client IN ({oldest})", (count - CLIENTS,))  # noqa: S608
        except BaseException:
            execute("ROLLBACK")
            raise
        execute("COMMIT")
        return left

    def close(self) -> None:
        """Close the database."""
        self._database.close()
