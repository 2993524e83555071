"""Slow clients, clients that take more than their share, and requests that two programs would read in two ways."""

import contextlib
import http.client
import json
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from chestxray.serve import connections
from chestxray.serve.rate_limit import client_of
from serve.conftest import UNIX
from serve.fakes import BrightEngine, by_workers, image_bytes, listening

BEGUN = b"POST /api/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def connected(port, count=1):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(count)]


def answer(connection):
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(65_536):
            received += block
    return received


def healthy(port):
    with connected(port) as (connection,):
        connection.sendall(HEALTH)
        return b" 200 " in answer(connection)[:20]


def status(answered):
    return int(answered.split(b" ", 2)[1]) if answered else None


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: x\r\nX: ", BEGUN % 1000])
def test_a_request_must_have_come_in_a_given_time_however_slowly_it_drips(sent, serving):
    with serving(upload_timeout=1.0) as port, connected(port) as (connection,):
        connection.sendall(sent)
        begun = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - begun < 15:
                connection.sendall(b"a")
                time.sleep(0.05)
        assert 0.5 < time.monotonic() - begun < 10


def test_an_answer_must_be_taken_in_a_given_time(monkeypatch):
    dropped = threading.Event()

    def drop(channel):
        channel.will_close = True
        dropped.set()

    monkeypatch.setattr(connections.Channel, "drop", drop)
    # Larger than what the operating system keeps on its way, and than what waitress lets wait.
    monkeypatch.setattr("chestxray.serve.app.RESEARCH_ONLY", "x" * 25_000_000)
    with listening(upload_timeout=1.0) as port, connected(port) as (connection,):
        connection.sendall(b"GET /api/models HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(10)
        assert dropped.wait(30)
        assert healthy(port)


def test_a_hundred_slow_connections_of_a_client_stop_nobody(serving):
    with serving() as port, connected(port, 100) as slow:
        for connection in slow:
            with contextlib.suppress(OSError):
                connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        begun = time.monotonic()
        assert all(healthy(port) for _ in range(5))
        assert time.monotonic() - begun < 5


def test_connections_of_all_clients_are_bounded(monkeypatch):
    # Each connection from an address of its own, as far as the server knows.
    numbers = iter(range(1000))
    monkeypatch.setattr(connections, "client_of", lambda address: str(next(numbers)))
    monkeypatch.setattr(connections, "CONNECTIONS", 10)
    with listening() as port, connected(port, 30):
        begun = time.monotonic()
        assert healthy(port)
        assert time.monotonic() - begun < 20


def test_what_is_computed_is_not_given_up_for_another_connection(decoders):
    hold = threading.Event()
    engine = BrightEngine(hold=hold)
    with listening(engine, connections=2, decoders=decoders) as port, connected(port) as (first,):
        content = image_bytes()
        first.sendall(BEGUN % len(content) + content)
        assert engine.begun.wait(30)
        with connected(port, 6):
            assert healthy(port)
        hold.set()
        assert b" 200 " in first.recv(100)


def test_an_upload_without_room_is_told_as_every_problem_is():
    status_line, headers, body = connections.Busy("Too many uploads.").to_response()
    assert status_line.startswith("503 ") and dict(headers)["Retry-After"] == "5"
    assert set(json.loads(body)) == {"request_id", "research_only", "error"}


@pytest.mark.parametrize(
    ("alike", "count", "kept"), [(True, 8, 5), (False, 16, 12)], ids=["of-a-client", "of-all-clients"]
)
def test_unfinished_uploads_are_bounded(alike, count, kept, monkeypatch):
    """A client may have 4 times what one upload may in memory, and all together 10 times."""
    sent, ends, seen = 80_000, queue.Queue(), set()
    received = connections.Request.received

    def watched(self, data):
        consumed = received(self, data)
        if self.channel not in seen and (self.completed or self.body_bytes_received == sent):
            seen.add(self.channel)
            ends.put(self.completed)
        return consumed

    monkeypatch.setattr(connections.Request, "received", watched)
    monkeypatch.setattr(connections, "_STEP", 10_000)
    if not alike:
        numbers = iter(range(1000))
        monkeypatch.setattr(connections, "client_of", lambda address: str(next(numbers)))
    with listening(max_upload=100_000) as port, connected(port, count) as uploads:
        for number, connection in enumerate(uploads):
            connection.sendall(BEGUN % 99_000 + bytes(sent))
            assert ends.get(timeout=60) == (number >= kept)
            if number >= kept:
                assert status(answer(connection)) == 503
        assert healthy(port)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nhost : a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a, b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"POST /api/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        b"POST /api/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST /api/predict HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_requests_that_could_be_read_in_two_ways(head, serving):
    with serving() as port, connected(port) as (connection,):
        connection.sendall(head)
        assert status(answer(connection)) == 400


def test_one_host_and_one_length_are_fine(serving):
    with serving() as port, connected(port) as (connection,):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: a\r\n host: b\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n")
        assert status(answer(connection)) == 200


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:5000", "192.0.2.7"),
        (" 192.0.2.7 ", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1:2:3", "2001:db8::/64"),
        ("[2001:db8::1]:5000", "2001:db8::/64"),
        ("[2001:db8::2]", "2001:db8::/64"),
        ('"[2001:db8::2]:1"', "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unknown", "unknown"),
    ],
)
def test_who_a_client_is(address, client):
    assert client_of(address) == client


def test_behind_a_proxy_addresses_of_one_network_are_one_client(decoders, serving):
    def ask(port, client):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            headers = {"Content-Type": "image/png", "X-Forwarded-For": client}
            connection.request("POST", "/api/predict", image_bytes(), headers)
            return connection.getresponse().status

    # Started before, as the bucket fills again in a minute.
    decoders.decode(image_bytes(), [((24, 32), "stretch")], (), 10_000, time.monotonic() + 120)
    with serving(per_minute=1, behind_proxy=True) as port:
        same = ["[2001:db8::1]:5000", "2001:db8::2", "[2001:db8::1]:5001", "192.0.2.1:80", "192.0.2.1:81"]
        assert [ask(port, client) for client in same] == [200, 429, 429, 200, 429]


#: A server in a process of its own, whose model computes as long as its first argument says.
SERVER = """
import sys, threading, time
sys.path[:0] = sys.argv[3:]
from chestxray.serve.app import create_app
from chestxray.serve.connections import Server
from chestxray.serve.server import bound, serve_until_stopped
from chestxray.serve.settings import Settings
from serve.fakes import BrightEngine, image_bytes, served
class Slow(BrightEngine):
    def run(self, pixels, *, maps=False):
        time.sleep(float(sys.argv[1]))
        return super().run(pixels, maps=maps)
settings = Settings(threads=1, grace=float(sys.argv[2]))
app = create_app(served(Slow()), settings)
app.extensions["chestxray"].decoders.decode(image_bytes(), [((24, 32), "stretch")], (), 10_000, time.monotonic() + 120)
with bound("127.0.0.1", 0) as listener:
    server = Server(app, settings, listener)
    print(server.effective_port, flush=True)
    serve_until_stopped(server, app.extensions["chestxray"])
"""


@pytest.fixture(params=["alone", pytest.param("workers", marks=UNIX)])
def running(request):
    """A context manager that gives the process of a server, or of its master, and its port."""

    @contextlib.contextmanager
    def alone(seconds, grace=1.0):
        tests = Path(__file__).parents[1]
        command = [sys.executable, "-c", SERVER, str(seconds), str(grace), str(tests), str(tests.parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                yield server, int(server.stdout.readline())
            finally:
                server.kill()

    return alone if request.param == "alone" else lambda seconds, grace=1.0: by_workers(seconds=seconds, grace=grace)


def test_a_stop_lets_what_has_begun_be_answered(running):
    with running(1.5, grace=60.0) as (server, port), connected(port) as (connection,):
        content = image_bytes()
        connection.sendall(BEGUN % len(content) + content)
        while b"in_progress 1.0" not in metrics(port):
            time.sleep(0.1)
        server.send_signal(signal.SIGTERM)
        assert b" 200 " in answer(connection)[:20]
        assert server.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_stops_though_a_model_computes_without_end(number, running):
    with running(1000) as (server, port), connected(port) as (connection,):
        content = image_bytes()
        connection.sendall(BEGUN % len(content) + content)
        while b"in_progress 1.0" not in metrics(port):
            time.sleep(0.1)
        time.sleep(1)
        begun = time.monotonic()
        server.send_signal(number)
        # Four seconds, and patience for a busy machine.
        assert server.wait(60) == 1
        assert time.monotonic() - begun < 40


def test_a_second_signal_stops_at_once(running):
    with running(1000, grace=300.0) as (server, port), connected(port) as (connection,):
        content = image_bytes()
        connection.sendall(BEGUN % len(content) + content)
        while b"in_progress 1.0" not in metrics(port):
            time.sleep(0.1)
        server.send_signal(signal.SIGINT)
        time.sleep(1)
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130


def metrics(port):
    with connected(port) as (connection,):
        connection.sendall(HEALTH.replace(b"/healthz", b"/metrics"))
        return answer(connection)
