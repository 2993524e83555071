"""Fetches an image by its URL, from public hosts only, with limits on bytes and seconds."""

from __future__ import annotations

import contextlib
import http.client
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

from chestxray._version import VERSION
from chestxray.serve.errors import RequestProblem
from chestxray.serve.public_hosts import public_address, refused

REDIRECTS = 3
#: Most look-ups of names at the same time.
LOOK_UPS = 16
LONGEST = 2048
_MOVED = (301, 302, 303, 307, 308)

#: Returns the address to connect to for (host, port), or raises `RequestProblem`.
Resolver = Callable[[str, int], str]


@dataclass(frozen=True)
class Links:
    """Fetches at most ``max_bytes`` within ``seconds`` in total. ``resolve`` decides which hosts may be reached."""

    max_bytes: int
    seconds: float = 10.0
    resolve: Resolver = public_address

    def fetch(self, url: str) -> bytes:
        """Return the content at `url`. Redirects are followed, each checked as the first address.

        No cookie, credential or proxy of this machine is used.

        Raises:
            RequestProblem: an address that is refused or cannot be reached, a time-out, a status other than 200, or
                compressed content (422); too many bytes (413).
        """
        ends = time.monotonic() + self.seconds
        for _ in range(REDIRECTS + 1):
            parts = _split(url)
            found = self._once(parts, ends)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
            if parts.scheme == "https" and not url.lower().startswith("https:"):
                raise refused("The link leads from https to an address without it.")
        raise refused(f"The link leads on more than {REDIRECTS} times.")

    def _once(self, parts: SplitResult, ends: float) -> bytes | str:
        """Return the content, or the address of a redirect."""
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        with _within(ends) as (left, watch):
            address = _resolved(self.resolve, host, port, left())
            connection = watch(socket.create_connection((address, port), timeout=left()))
            if parts.scheme == "https":
                # The handshake is done later, on the socket that is watched.
                context = ssl.create_default_context()
                connection = watch(context.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False))
                connection.settimeout(left())
                connection.do_handshake()
            client = http.client.HTTPConnection(host, port)
            client.default_port = 443 if parts.scheme == "https" else 80
            client.sock = connection
            with contextlib.closing(client):
                client.request("GET", parts._replace(scheme="", netloc="", fragment="").geturl(), headers=_HEADERS)
                with contextlib.closing(client.getresponse()) as response:
                    return self._read(response)

    def _read(self, response: http.client.HTTPResponse) -> bytes | str:
        if response.status in _MOVED:
            return response.getheader("Location") or ""
        if response.status != 200:
            raise RequestProblem(422, "link_not_reached", f"The link's host answers {response.status}.")
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise refused("The link's host sends compressed content, which was not asked for.")
        content = response.read(self.max_bytes + 1)
        if len(content) > self.max_bytes or (response.length or 0) > self.max_bytes:
            raise RequestProblem(413, "too_large", f"The link leads to more than {self.max_bytes:,} bytes.")
        if response.length:
            raise RequestProblem(422, "link_not_reached", "The link's host hung up before the end.")
        return content


_HEADERS = {"Accept": "image/png, image/jpeg, application/dicom", "User-Agent": f"chestxray/{VERSION}"}


def _split(url: str) -> SplitResult:
    # Parsers disagree on blanks, backslashes and non-ASCII letters in a host.
    if len(url) > LONGEST or not url.isascii() or not url.isprintable() or any(char in url for char in ' \\<>"'):
        raise refused(f"A link must be at most {LONGEST} printable ASCII characters, without blanks and backslashes.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused("The link is not a URL.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise refused("A link must begin with https:// or http:// and a host.")
    if "@" in parts.netloc or "%" in parts.netloc:
        raise refused("A link must not hold a user name, a password or an escaped host.")
    return parts


def _resolved(resolve: Resolver, host: str, port: int, seconds: float) -> str:
    """Return the result of `resolve` within `seconds`. The operating system's look-up cannot be cancelled: it runs in
    a thread of its own, at most `LOOK_UPS` at the same time.
    """
    if not _looking.acquire(timeout=seconds):
        raise TimeoutError
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put((resolve(host, port), None))
        except Exception as error:
            found.put((None, error))
        finally:
            _looking.release()

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        address, error = found.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return str(address)


_looking = threading.BoundedSemaphore(LOOK_UPS)
_Socket = TypeVar("_Socket", bound=socket.socket)


class _Watched:
    """Sockets that are shut when the time is over, also those added later."""

    def __init__(self) -> None:
        self.late = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def add(self, connection: _Socket) -> _Socket:
        with self._lock:
            self._sockets.append(connection)
            if not self.late:
                return connection
        self.shut()
        raise TimeoutError

    def shut(self) -> None:
        with self._lock:
            self.late = True
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    # The plain socket's method: that of an SSL socket would remove TLS first.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()


@contextmanager
def _within(ends: float) -> Iterator[tuple[Callable[[], float], Callable[[Any], Any]]]:
    """Shut the watched sockets when the time is over: a socket's own timeout starts again with every byte."""
    watched = _Watched()

    def left() -> float:
        seconds = ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    timer = None
    try:
        timer = threading.Timer(left(), watched.shut)
        timer.daemon = True
        timer.start()
        yield left, watched.add
        if watched.late:
            raise TimeoutError
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, TimeoutError) or watched.late:
            raise RequestProblem(422, "link_not_reached", "The link's host takes too long.") from error
        raise RequestProblem(422, "link_not_reached", "The link's host cannot be reached or understood.") from error
    finally:
        if timer is not None:
            timer.cancel()
        watched.close()
