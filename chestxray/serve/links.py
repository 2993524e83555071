"""An image by its web address: public hosts only, at most so many bytes, at most so many seconds."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from chestxray import __version__
from chestxray.serve.addresses import public_address, refused
from chestxray.serve.problems import RequestProblem

REDIRECTS = 3
LONGEST = 2048
_MOVED = (301, 302, 303, 307, 308)

#: (host, port) -> the address to connect to, or a `RequestProblem`.
Resolver = Callable[[str, int], str]


@dataclass(frozen=True)
class Links:
    """Fetches at most ``max_bytes`` within ``seconds`` all in all. ``resolve`` decides what may be reached."""

    max_bytes: int
    seconds: float = 10.0
    resolve: Resolver = public_address

    def fetch(self, url: str) -> bytes:
        """The content at `url`, redirects followed, each checked as the first.

        No cookie, credential or proxy of this machine is used.

        Raises:
            RequestProblem: an address that is refused or cannot be reached, no answer in time, an
                answer other than 200 or compressed (422), too many bytes (413).
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
        """The content, or the address of a redirect."""
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        address = self.resolve(host, port)
        with _within(ends) as (left, watch):
            connection = socket.create_connection((address, port), timeout=left())
            watch(connection)
            if parts.scheme == "https":
                connection = ssl.create_default_context().wrap_socket(connection, server_hostname=host)
                watch(connection)
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


_HEADERS = {"Accept": "image/png, image/jpeg, application/dicom", "User-Agent": f"chestxray/{__version__}"}


def _split(url: str) -> SplitResult:
    # Parsers disagree on what blanks, backslashes and letters beyond ASCII mean in a host.
    if len(url) > LONGEST or not url.isascii() or not url.isprintable() or any(char in url for char in ' \\<>"'):
        raise refused(f"A link must be at most {LONGEST} printable ASCII characters, without blanks and backslashes.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused("The link is no web address.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise refused("A link must begin with https:// or http:// and a host.")
    if "@" in parts.netloc or "%" in parts.netloc:
        raise refused("A link must not hold a user name, a password or an escaped host.")
    return parts


@contextmanager
def _within(ends: float) -> Iterator[tuple[Callable[[], float], Callable[[socket.socket], None]]]:
    """Close what is watched when the time is up: a socket's own timeout begins anew with every byte."""
    watched: list[socket.socket] = []
    late = threading.Event()

    def left() -> float:
        seconds = ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    def close() -> None:
        late.set()
        for connection in watched:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    timer = None
    try:
        timer = threading.Timer(left(), close)
        timer.daemon = True
        timer.start()
        yield left, watched.append
        if late.is_set():
            raise TimeoutError
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, TimeoutError) or late.is_set():
            raise RequestProblem(422, "link_not_reached", "The link's host takes too long.") from error
        raise RequestProblem(422, "link_not_reached", "The link's host cannot be reached or understood.") from error
    finally:
        if timer is not None:
            timer.cancel()
        for connection in watched:
            connection.close()
