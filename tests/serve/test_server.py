"""The server itself, over TCP, and the command that starts it."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading

import pytest

from chestxray.cli.main import group
from chestxray.errors import ChestXrayError, DataError, InputError
from chestxray.serve.loading import open_models
from chestxray.serve.server import bound
from serve.fakes import BrightEngine, image_bytes, listening


def ask(port, content=b"", method="POST", path="/api/predict", **headers):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
        client.request(method, path, content, {"Content-Type": "image/png", **headers})
        response = client.getresponse()
        return response.status, response.headers, response.read()


def raw(port, content):
    """What comes back for bytes that are no proper request, or for half of one."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(content)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while block := connection.recv(65536):
                received += block
        return received


def test_over_tcp_nothing_touches_the_disk(tmp_path, monkeypatch, decoders):
    # A place for temporary files that cannot be written to: whoever needs one fails.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with listening(per_minute=0, decoders=decoders) as port:
        content = image_bytes(size=(3000, 2000), compress_level=0)
        assert len(content) > 5_000_000
        status, headers, body = ask(port, content, path="/api/predict?maps=true&pictures=true")
        assert status == 200 and json.loads(body)["answers"][0]["decision"] == "bright"
        assert "Server" not in headers
        chunks = (content[at : at + 100_000] for at in range(0, len(content), 100_000))
        assert ask(port, chunks)[0] == 200


def test_too_many_bytes_are_refused_before_they_come(serving):
    with serving(max_upload=50_000) as port:
        assert ask(port, bytes(60_000))[0] == 413
        begun = b"POST /api/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        assert b" 413 " in raw(port, begun + b"Content-Length: 99999999999\r\n\r\n").splitlines()[0]
        endless = begun + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + bytes(65536) + b"\r\n"
        many = endless + b"".join(b"10000\r\n" + bytes(65536) + b"\r\n" for _ in range(20)) + b"0\r\n\r\n"
        assert b" 413 " in raw(port, many).splitlines()[0]


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /%00%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
def test_requests_that_are_none(content, serving):
    with serving() as port:
        first = raw(port, content).splitlines()[0]
        assert first.split()[1][:1] in (b"4", b"2")
        assert ask(port, method="GET", path="/healthz")[0] == 200


def test_behind_a_proxy_the_client_is_the_one_it_names(serving):
    with serving(per_minute=1, behind_proxy=True) as port:
        asked = [
            ask(port, image_bytes(), **{"X-Forwarded-For": client})[0]
            for client in ("192.0.2.1", "192.0.2.2", "192.0.2.1")
        ]
        assert asked == [200, 200, 429]
    with serving(per_minute=1) as port:
        asked = [ask(port, image_bytes(), **{"X-Forwarded-For": client})[0] for client in ("192.0.2.1", "192.0.2.2")]
        assert asked == [200, 429]


def test_health_answers_while_images_wait(decoders):
    hold = threading.Event()
    engine = BrightEngine(hold=hold)
    with listening(engine, threads=1, waiting=2, decoders=decoders) as port:
        clients = [threading.Thread(target=ask, args=(port, image_bytes())) for _ in range(6)]
        for client in clients:
            client.start()
        assert engine.begun.wait(30)
        assert ask(port, method="GET", path="/healthz")[0] == 200
        hold.set()
        for client in clients:
            client.join()


def test_a_port_in_use_and_hosts_that_are_not_here():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} of 127.0.0.1 is in use. Choose another with --port"):
            bound("127.0.0.1", port)
    for host in ("192.0.2.1", "no such host", "300.1.1.1"):
        with pytest.raises(InputError, match="--host must be an address of this machine"):
            bound(host, 0)


def test_what_is_no_model(tmp_path):
    for path, reason in (
        (tmp_path / "nowhere", "No such model"),
        (tmp_path, "is not a run: it must be a folder with recipe.toml"),
    ):
        with pytest.raises(InputError, match=reason):
            open_models([path])
    with pytest.raises(InputError, match="No model"):
        open_models([])
    other = tmp_path / "model.keras"
    other.write_bytes(b"x")
    with pytest.raises(InputError, match="must be a run's folder, or an ONNX file"):
        open_models([other])
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(b"no ONNX")
    with pytest.raises(DataError, match="is not an ONNX file"):
        open_models([damaged])
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.toml").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"was not finished: model\.keras is missing"):
        open_models([run])
    (run / "predictions.csv").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="holds predictions and no weights"):
        open_models([run])


def test_the_command_says_what_is_missing(monkeypatch, tmp_path):
    with pytest.raises(ChestXrayError, match="No such model"):
        group(["serve", str(tmp_path / "nowhere"), "--port", "0"], standalone_mode=False)
    monkeypatch.setitem(sys.modules, "waitress", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "waitress" else True)
    with pytest.raises(InputError, match=r"serve needs waitress: pip install 'chestxray\[serve\]'"):
        group(["serve", "runs/x"], standalone_mode=False)


def test_nothing_heavy_is_imported():
    code = (
        "import sys\n"
        "import chestxray.cli.serve, chestxray.serve.app, chestxray.serve.server, chestxray.serve.loading\n"
        "import chestxray.inference.onnx_engine\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'pyarrow', 'pydicom'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"
