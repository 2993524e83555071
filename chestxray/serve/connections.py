"""Connections of clients on waitress, with limits on time, on connections a client and on bytes in memory.

waitress waits as long as a client sends a byte now and then, and limits neither connections nor bytes of a
client. Here a request must arrive, and its response be received, within a given time; a client with too many
connections loses the one that has waited longest; and the bytes of all requests together are limited.
Ambiguous requests, which two programs could parse differently (RFC 9112), are refused.

Why waitress still: hypercorn (0.18) has a timeout between two reads, granian (2.8) one for heads, gunicorn's
gevent workers (27) none, and none of them counts connections or bytes of a client, so that all of this would
have to be written for them too. It rests on waitress's classes, hence the bound of its version.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask
from waitress.utilities import Error

from chestxray._version import RESEARCH_ONLY
from chestxray.serve.rate_limit import client_of
from chestxray.serve.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

#: Most connections of all clients together. One more replaces the one that has waited longest.
CONNECTIONS = 100
#: Threads in addition to those for images, so that the page, health check and metrics never wait.
SPARE = 4
#: Most seconds until the header of a request has arrived, and until an idle connection is closed.
HEAD, IDLE = 10.0, 30.0
#: Seconds in which a kept-alive connection may send one more request when the server stops.
LINGER = 1.0
#: Bytes of a request between two checks of the memory in use.
_STEP = 1 << 20
_FIELD = re.compile(rb"^(host|content-length|transfer-encoding)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]*\Z")


class Busy(Error):
    """The response to a request for whose bytes there is no memory left."""

    code = 503
    reason = "Service Unavailable"

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return the response in the format of the application's errors, with an id of its own."""
        request_id = uuid.uuid4().hex
        content = {
            "request_id": request_id,
            "research_only": RESEARCH_ONLY,
            "error": {"code": "busy", "message": self.body},
        }
        headers = [("Content-Type", "application/json"), ("Retry-After", "5"), ("X-Request-ID", request_id)]
        return f"{self.code} {self.reason}", headers, json.dumps(content).encode()


class Request(HTTPRequestParser):
    """A request that is being received on a channel."""

    completed: bool
    error: Any

    def __init__(self, adjustments: Adjustments, channel: Channel) -> None:
        super().__init__(adjustments)
        self.began = time.monotonic()
        self.channel = channel
        self._counted = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of its body in memory."""
        return 0 if self.body_rcv is None else len(self.body_rcv)

    def received(self, data: bytes) -> int:
        """Extend waitress's method: refuse a request at once for whose bytes there is no memory left."""
        consumed = super().received(data)
        if not self.completed and self.body_bytes_received - self._counted >= _STEP:
            self._counted = self.body_bytes_received
            if not self.channel.server.has_room(self.channel):
                self.error = Busy("Too many uploads at once. Try again.")
                self.completed = True
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Extend waitress's method by checks for ambiguous requests.

        Raises:
            ParsingError: not exactly one Host, or two definitions of the request's length (RFC 9112, 3.2 and 6.1).
        """
        super().parse_header(header_plus)
        fields = [(name.lower(), value) for name, value in _FIELD.findall(header_plus)]
        count = Counter(name for name, _ in fields)
        if count[b"host"] > 1 or (self.version == "1.1" and count[b"host"] != 1):
            raise ParsingError("There must be one Host")
        if not all(_HOST.match(value.strip()) for name, value in fields if name == b"host"):
            raise ParsingError("Host is invalid")
        if count[b"content-length"] > 1 or (count[b"transfer-encoding"] and count[b"content-length"]):
            raise ParsingError("There must be one of Content-Length and Transfer-Encoding")
        if count[b"transfer-encoding"] and self.version != "1.1":
            raise ParsingError("Transfer-Encoding needs HTTP/1.1")

    def close(self) -> None:
        """Release the body."""
        super().close()
        self.body_rcv = None


class Task(WSGITask):
    """A request that is being answered. While the server stops, its answer says that the connection is closed."""

    def get_environment(self) -> dict[str, Any]:
        """Extend waitress's method by ``chestxray.stopping``."""
        environment: dict[str, Any] = super().get_environment()
        environment["chestxray.stopping"] = self.channel.server.stopping
        return environment

    def build_response_header(self) -> bytes:
        """Extend waitress's method: a client that is told so sends no other request into a connection that ends."""
        if self.channel.server.stopping:
            self.request.headers["CONNECTION"] = "close"
        header: bytes = super().build_response_header()
        return header


class Channel(HTTPChannel):
    """A connection of a client."""

    task_class = Task

    def __init__(self, server: Server, connection: socket.socket, address: Any, adjustments: Any, map: Any) -> None:
        super().__init__(server, connection, address, adjustments, map)
        self.parser_class = partial(Request, channel=self)
        self.peer = client_of(str(address[0]))
        self.opened = time.monotonic()
        self.asked_last = self.opened
        self.sending_since: float | None = None
        server.admit(self)

    @property
    def client(self) -> str:
        """The key of the client: behind a proxy, of the forwarded address, once a request has it."""
        for request in (*self.requests, self.request):
            forwarded_for = request.headers.get("X_FORWARDED_FOR") if request is not None else None
            if forwarded_for and self.server.behind_proxy:
                return client_of(forwarded_for.rpartition(",")[2])
        return self.peer

    @property
    def held_bytes(self) -> int:
        """Bytes in memory of its requests, unfinished or being answered."""
        return sum(request.held_bytes for request in (*self.requests, self.request) if request is not None)

    @property
    def waits(self) -> bool:
        """Whether nothing is being computed for it, so that it can be closed."""
        return not self.requests and not self.will_close

    @property
    def since(self) -> tuple[bool, float]:
        """Sort key: idle connections first, then by the time that they have waited."""
        return (self.request is not None, self.asked_last if self.request is None else self.request.began)

    def drop(self) -> None:
        """Mark it to be closed by the loop: closed at once, its descriptor could be reused in the same iteration."""
        self.will_close = True

    def look(self, now: float, seconds: float) -> None:
        """Drop it if it is too slow: `seconds` are allowed for a request, and for receiving a response."""
        if self.total_outbufs_len:
            # Also while the rest of a response waits in the buffer.
            self.sending_since = self.sending_since or now
            if now - self.sending_since > seconds:
                self.drop()
        elif self.requests:
            self.asked_last, self.sending_since = now, None
        elif self.request is not None:
            head = not self.request.headers_finished
            if now - self.request.began > (min(HEAD, seconds) if head else seconds):
                self.drop()
        else:
            if self.sending_since is not None:
                self.asked_last, self.sending_since = now, None
            if now - self.asked_last > IDLE:
                self.drop()


class Server(TcpWSGIServer):
    """waitress's server with these channels. `stop` ends `run` after the running requests."""

    channel_class = Channel
    stopping = False

    def __init__(self, app: Flask, settings: Settings, listener: socket.socket) -> None:
        self.settings = settings
        self.behind_proxy = settings.behind_proxy
        adjustments = _adjustments(settings, listener)
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(adjustments.threads)
        about = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(
            app, {}, True, listener, dispatcher=dispatcher, adj=adjustments, sockinfo=about, bind_socket=False
        )

    def admit(self, channel: Channel) -> None:
        """Drop a connection where `channel` exceeds the limit of its client, or of all clients together."""
        channels = [other for other in self.active_channels.values() if not other.will_close]
        # Connections of a proxy are not limited here: it serves many clients.
        mine = [] if self.behind_proxy else [other for other in channels if other.peer == channel.peer]
        if len(mine) > self.settings.connections:
            self._drop_one(mine, channel)
        elif len(channels) > CONNECTIONS:
            holders = Counter(other.peer for other in channels)
            most = max(holders.values())
            self._drop_one([other for other in channels if holders[other.peer] == most], channel)

    def _drop_one(self, channels: list[Channel], newest: Channel) -> None:
        waiting = [channel for channel in channels if channel.waits and channel is not newest]
        (min(waiting, key=lambda channel: channel.since) if waiting else newest).drop()

    def has_room(self, channel: Channel) -> bool:
        """Return whether the bytes in memory for `channel` are within the limits."""
        held = {other: other.held_bytes for other in list(self.active_channels.values())}
        if sum(size for other, size in held.items() if other.client == channel.client) > self.settings.client_bytes:
            return False
        return sum(held.values()) <= self.settings.held_bytes

    def maintenance(self, now: float) -> None:
        """Check all channels; called by the loop about once a second."""
        for channel in list(self.active_channels.values()):
            channel.look(time.monotonic(), self.settings.upload_timeout)

    def stop(self) -> None:
        """Accept no more connections, and let `run` return once all requests are answered that have arrived, wholly or
        in part, or after ``settings.grace`` seconds. May be called from another thread or a signal handler.
        """
        self.stopping = True
        self.pull_trigger()

    def run(self, beat: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`. `beat` is called at least every second, also while the last requests are answered."""
        while not self.stopping:
            beat()
            self._turn(1.0)
        self._accept_what_waits()
        self.accepting = False
        self.del_channel()
        self.socket.close()
        stopped = time.monotonic()
        while self._unanswered() or (self.active_channels and time.monotonic() - stopped < LINGER):
            if time.monotonic() - stopped > self.settings.grace:
                break
            beat()
            self._turn(0.05)
        self.task_dispatcher.shutdown(timeout=1)
        self.trigger.close()
        wasyncore.close_all(self._map, ignore_all=True)

    def _accept_what_waits(self) -> None:
        """Accept the connections that the operating system has accepted for this server, and holds."""
        for _ in range(CONNECTIONS):
            known = len(self._map)
            self.handle_accept()
            if len(self._map) == known:
                return

    def _unanswered(self) -> bool:
        channels = list(self.active_channels.values())
        return any(channel.requests or channel.request is not None or channel.total_outbufs_len for channel in channels)

    def _turn(self, seconds: float) -> None:
        wasyncore.loop(timeout=seconds, use_poll=self.adj.asyncore_use_poll, map=self._map, count=1)


def _adjustments(settings: Settings, listener: socket.socket) -> Adjustments:
    # Uploads stay in memory: waitress writes what exceeds its buffer to a file.
    body = settings.max_upload + 1_000_000
    proxy: dict[str, Any] = {}
    if settings.behind_proxy:
        proxy = {"trusted_proxy": "*", "trusted_proxy_count": 1, "trusted_proxy_headers": "x-forwarded-for"}
    return Adjustments(
        sockets=[listener],
        threads=settings.threads + settings.waiting + SPARE,
        ident=None,
        max_request_body_size=body,
        inbuf_overflow=body + 1,
        outbuf_overflow=1 << 30,
        max_request_header_size=16_384,
        recv_bytes=65_536,
        # `select` has a limit on the numbers of descriptors, poll has none.
        asyncore_use_poll=hasattr(select, "poll"),
        cleanup_interval=1,
        connection_limit=2 * CONNECTIONS,
        log_socket_errors=False,
        clear_untrusted_proxy_headers=True,
        **proxy,
    )
