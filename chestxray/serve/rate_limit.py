"""Limits the requests of one client per minute.

Flask-Limiter is not used: its windows allow twice the rate at their border or keep every request in memory, where a
token bucket needs two numbers a client; its storage in memory does not bound the number of clients; and a client of
IPv6 must count by its network.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

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
        self._per_minute = per_minute
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
            now = self._clock()
            left, seen = self._buckets.pop(client, (float(self._per_minute), now))
            left = min(self._per_minute, left + (now - seen) * self._per_minute / 60)
            self._buckets[client] = (left - 1 if left >= 1 else left, now)
            if len(self._buckets) > CLIENTS:
                self._buckets.popitem(last=False)
        if left < 1:
            wait = math.ceil((1 - left) * 60 / self._per_minute)
            message = f"At most {self._per_minute} images a minute. Try again in {wait} seconds."
            raise RequestProblem(429, "too_often", message, retry_after=wait)
