"""Runs the server of an application: binds its socket, serves, and stops on a signal."""

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


def bound(host: str, port: int) -> socket.socket:
    """Return a socket bound to `host` and `port` that does not listen yet, so that a port in use is reported before
    models are loaded.

    Raises:
        InputError: the port is in use or not permitted, or the host is not an address of this machine.
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
    """Serve until Ctrl-C or SIGTERM, the signal that stops a container. Requests that have begun then have
    ``settings.grace`` seconds; after ``settings.last`` the process ends in any case. A second signal ends it at once.
    """
    last = threading.Timer(server.settings.last, os._exit, (1,))
    last.daemon = True

    def stop(number: int, frame: FrameType | None) -> None:
        if server.stopping:
            os._exit(128 + number)
        last.start()
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run()
    # Decoding processes are ended. A model that still computes is waited for until the timer ends the process.
    work.close()


def _not_here(host: str) -> str:
    return f"--host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0. Received: {host}."
