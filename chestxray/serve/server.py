"""The server of an application, from its socket until it is stopped."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from types import FrameType
from typing import TYPE_CHECKING

from chestxray.errors import InputError
from chestxray.serve.connections import Server

if TYPE_CHECKING:
    from chestxray.serve.app import Work

#: Seconds from the signal to the end of the process; containers are given ten before they are killed.
LAST = 8.0


def bound(host: str, port: int) -> socket.socket:
    """A socket at `host` and `port` that does not listen yet: a port in use is told before models load.

    Raises:
        InputError: the port is in use or not allowed, or there is no such host.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(_not_here(host)) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        reasons: dict[int | None, str] = {
            errno.EADDRINUSE: f"Port {port} of {host} is in use. Choose another with --port, or 0 for a free one.",
            errno.EACCES: f"Port {port} is not allowed to you. Choose one above 1023 with --port.",
            errno.EADDRNOTAVAIL: _not_here(host),
        }
        if error.errno not in reasons:
            raise
        raise InputError(reasons[error.errno]) from error
    return made


def serve_until_stopped(server: Server, work: Work) -> None:
    """Serve until Ctrl-C or SIGTERM, which a container is stopped by. Then what has begun is given
    `connections.GRACE` seconds; after `LAST` the process ends, whatever is still computed. A second signal
    ends it at once.
    """
    last = threading.Timer(LAST, os._exit, (1,))
    last.daemon = True

    def stop(number: int, frame: FrameType | None) -> None:
        if server.stopping:
            os._exit(128 + number)
        last.start()
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run()
    # Decoding is ended here. A model that still computes is waited for, until the timer runs out.
    work.close()


def _not_here(host: str) -> str:
    return f"--host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0. Received: {host}."
