"""The application on waitress, until it is stopped."""

from __future__ import annotations

import errno
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import waitress

from chestxray.errors import InputError
from chestxray.serve.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

#: Threads beyond those that answer images, so that the page, health and metrics never wait for them.
SPARE = 4
CONNECTIONS = 100


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


def create_server(app: Flask, settings: Settings, listener: socket.socket) -> Any:
    """A waitress server of `app` that listens at `listener`; its ``run()`` serves, ``effective_port`` is where."""
    # Uploads stay in memory: waitress would put what is larger than its buffer into a file.
    body = settings.max_upload + 1_000_000
    proxy: dict[str, Any] = {}
    if settings.behind_proxy:
        proxy = {"trusted_proxy": "*", "trusted_proxy_count": 1, "trusted_proxy_headers": "x-forwarded-for"}
    return waitress.create_server(
        app,
        sockets=[listener],
        threads=settings.threads + settings.waiting + SPARE,
        ident=None,
        max_request_body_size=body,
        inbuf_overflow=body + 1,
        outbuf_overflow=1 << 30,
        max_request_header_size=16_384,
        channel_timeout=30,
        connection_limit=CONNECTIONS,
        log_socket_errors=False,
        clear_untrusted_proxy_headers=True,
        **proxy,
    )


def serve_until_stopped(server: Any) -> None:
    """Serve until Ctrl-C or SIGTERM, which a container is stopped by."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        server.run()
    finally:
        server.close()


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _not_here(host: str) -> str:
    return f"--host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0. Received: {host}."
