"""Several processes behind one address: limits, metrics, reload, and what happens when one of them dies."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chestxray.serve.errors import RequestProblem
from chestxray.serve.rate_limit import CLIENTS, SharedLimit
from chestxray.serve.shared_folder import shared_folder
from serve.conftest import UNIX
from serve.fakes import by_workers, image_bytes
from serve.test_loading import described, onnx, written

pytestmark = UNIX
PATIENCE = 120


def ask(port, path="/api/predict", content=None, connection=None):
    """Status and body of an answer, by a connection of its own unless one is given."""
    client = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.nullcontext() if connection else contextlib.closing(client):
        client.request("GET" if content is None else "POST", path, content, {"Content-Type": "image/png"})
        response = client.getresponse()
        return response.status, response.read()


def number(port, name):
    """The value of a metric."""
    return float(re.search(rf"^{re.escape(name)} (\S+)$", ask(port, "/metrics")[1].decode(), re.MULTILINE)[1])


def workers_of(master):
    """The processes that serve, without those that decode."""
    children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
    return [int(pid) for pid in children]


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def serving(port):
    return json.loads(ask(port, "/readyz")[1])["models"]["model"]


def test_a_limit_is_one_of_all_processes_together():
    with by_workers(workers=3, per_minute=6) as (_, port), ThreadPoolExecutor(4) as pool:
        begun = time.monotonic()
        statuses = list(pool.map(lambda _: ask(port, content=image_bytes())[0], range(30)))
        filled = (time.monotonic() - begun) * 6 / 60
        assert 6 <= statuses.count(200) <= 6 + filled
        assert set(statuses) == {200, 429}


def test_processes_count_in_one_place_and_forget_who_is_not_seen(tmp_path):
    now = [0.0]
    first, second = (SharedLimit(2, tmp_path / "limit.sqlite", b"key", clock=lambda: now[0]) for _ in range(2))
    with contextlib.closing(first), contextlib.closing(second):
        first.take("a")
        second.take("a")
        for limit in (first, second):
            with pytest.raises(RequestProblem) as problem:
                limit.take("a")
            assert (problem.value.status, problem.value.retry_after) == (429, 30)
        now[0] = 30.0
        second.take("a")
        # The address is nowhere in the files.
        first.take("192.0.2.77")
        assert not any(b"192.0.2" in path.read_bytes() for path in tmp_path.iterdir())
        now[0] = 100.0
        first.take("b")
        assert first._database.execute("SELECT count(*) FROM buckets").fetchone() == (1,)
        many = ((bytes([number // 256, number % 256]), 1.0, 100.0) for number in range(CLIENTS + 10))
        first._database.executemany("INSERT INTO buckets VALUES (?, ?, ?)", many)
        first.take("c")
        assert first._database.execute("SELECT count(*) FROM buckets").fetchone() == (CLIENTS,)


def test_a_limit_that_cannot_be_counted_answers_nothing(tmp_path):
    limit = SharedLimit(2, tmp_path / "limit.sqlite", b"key")
    limit._database.execute("DROP TABLE buckets")
    with contextlib.closing(limit):
        for _ in range(3):
            with pytest.raises(RequestProblem) as problem:
                limit.take("a")
            assert problem.value.status == 503


def test_what_a_worker_tells_is_read_whole_or_not_at_all():
    pytest.importorskip("gunicorn")
    from chestxray.serve.workers import Slate

    slate = Slate()
    assert slate.read() == {} and not slate.go
    slate.write(models={"model": "0" * 16})
    assert slate.read() == {"models": {"model": "0" * 16}}
    # As the master may find it while the worker writes something shorter.
    slate._memory[8:18] = b'{"stopped"'
    assert slate.read() == {}
    slate.write(stopped=True)
    slate.release()
    assert slate.read() == {"stopped": True} and slate.go
    slate.close()


def test_one_page_of_metrics_for_all_processes():
    with by_workers(workers=2, per_minute=0) as (master, port):
        for _ in range(12):
            assert ask(port, content=image_bytes())[0] == 200
        pages = [ask(port, "/metrics")[1].decode() for _ in range(6)]
        counted = 'chestxray_answers_total{model="model",outcome="decided"} 12.0'
        assert all(counted in page for page in pages)
        pids = set(re.findall(r'chestxray_worker_resident_memory_bytes\{pid="(\d+)"\}', pages[0]))
        assert pids == set(map(str, workers_of(master)))
        # What a process has counted stays when it has ended; what it held does not.
        victim = workers_of(master)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(workers_of(master)) - {victim}) == 2)
        model = 'chestxray_model_workers{fingerprint="",model="model"}'
        until(lambda: number(port, model) == 2)
        page = ask(port, "/metrics")[1].decode()
        assert counted in page and f'pid="{victim}"' not in page


def test_a_process_that_is_killed_is_replaced_and_the_others_answer_meanwhile(tmp_path):
    with (tmp_path / "log").open("w+") as log, by_workers(workers=2, per_minute=0, log=log) as (master, port):
        before = workers_of(master)
        os.kill(before[0], signal.SIGKILL)
        assert ask(port, content=image_bytes())[0] == 200
        until(lambda: len(workers_of(master)) == 2 and before[0] not in workers_of(master))
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        assert any("was sent SIGKILL" in line["message"] for line in lines if line["level"] == "error")


def test_no_process_outlives_its_master():
    with by_workers(workers=2) as (master, port):
        workers = workers_of(master)
        ask(port, content=image_bytes())
        decoding = [pid for worker in workers for pid in children(worker)]
        assert len(decoding) == 2
        master.kill()
        until(lambda: not any(map(alive, [*workers, *decoding])))


def children(pid):
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_reload_loses_nothing_and_the_answers_say_which_model_gave_them(tmp_path):
    file = tmp_path / "model.json"
    file.write_text('"a"')
    answered, stop = [], threading.Event()

    def client():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with contextlib.closing(connection):
            while not stop.is_set():
                status, body = ask(port, content=image_bytes(), connection=connection)
                assert status == 200, body
                answered.append(json.loads(body)["answers"][0]["fingerprint"][0])

    settings = {"per_minute": 0, "waiting": 50}
    with by_workers(file=file, seconds=0.02, **settings) as (master, port), ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(client) for _ in range(6)]
        try:
            for name in "bc":
                file.write_text(json.dumps(name))
                master.send_signal(signal.SIGHUP)
                until(lambda name=name: answered[-20:] == [name] * 20)
                assert serving(port) == name * 16
        finally:
            stop.set()
        for one in clients:
            one.result()
        # Every request was answered, in the order of the models.
        assert "".join(dict.fromkeys(answered)) == "abc"
        counted = 'chestxray_requests_total{route="/api/predict",status="200"}'
        assert number(port, counted) == len(answered)
        assert number(port, f'chestxray_model_workers{{fingerprint="{"c" * 16}",model="model"}}') == 2


def test_a_broken_model_leaves_the_former_one_answering(tmp_path):
    file = tmp_path / "model.json"
    file.write_text('"a"')
    with (tmp_path / "log").open("w+") as log, by_workers(file=file, per_minute=0, log=log) as (master, port):
        before = workers_of(master)
        file.write_text("null")
        master.send_signal(signal.SIGHUP)
        said = tmp_path / "log"
        until(lambda: "reload failed" in said.read_text())
        failed = next(json.loads(line) for line in said.read_text().splitlines() if "reload failed" in line)
        assert failed["level"] == "error" and failed["reason"] == f"{file} is damaged."
        assert serving(port) == "a" * 16 and ask(port, content=image_bytes())[0] == 200
        assert workers_of(master) == before
        # A successor of a process that dies now finds another model than the others: it is not mixed in.
        file.write_text('"b"')
        os.kill(before[0], signal.SIGKILL)
        until(lambda: "a worker cannot start" in said.read_text())
        assert {serving(port) for _ in range(6)} == {"a" * 16}
        master.send_signal(signal.SIGHUP)
        until(lambda: serving(port) == "b" * 16)
        until(lambda: len(workers_of(master)) == 2 and before[1] not in workers_of(master))


def test_readiness_ends_when_the_stop_begins():
    with by_workers(seconds=2.0, grace=60.0) as (master, port):
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with contextlib.closing(kept), ThreadPoolExecutor(4) as pool:
            assert ask(port, "/readyz", connection=kept) == (
                200, (b'{"status":"ready","version":"%s","models":{"model":""}}\n' % version())
            )  # fmt: skip
            requests = [pool.submit(ask, port, content=image_bytes()) for _ in range(4)]
            until(lambda: number(port, "chestxray_images_in_progress") == 4)
            master.send_signal(signal.SIGTERM)
            until(lambda: refused(port))
            # A connection that was kept alive has one more answer, and is told that it ends.
            kept.request("GET", "/readyz")
            response = kept.getresponse()
            assert response.status == 503 and json.loads(response.read())["status"] == "stopping"
            assert response.headers["Connection"] == "close"
            assert [request.result()[0] for request in requests] == [200] * 4
        assert master.wait(PATIENCE) == 0


def refused(port):
    try:
        ask(port, "/readyz")
    except OSError:
        return True
    return False


def version():
    from chestxray._version import VERSION

    return VERSION.encode()


@pytest.mark.skipif(not hasattr(onnx, "save"), reason="the extra export is not installed")
def test_the_command_serves_a_file_and_loads_another_in_its_place(tmp_path):
    path = tmp_path / "model.onnx"
    written(path, described())
    code = "from chestxray.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", str(path), "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as master:
        try:
            said = master.stderr.readline()
            assert said.startswith("Serving on "), said + master.stderr.read()
            threading.Thread(target=master.stderr.read, daemon=True).start()
            port = int(said.rpartition(":")[2])
            first = serving(port)
            written(tmp_path / "new", described(name="other"))
            (tmp_path / "new").replace(path)
            assert serving(port) == first and re.fullmatch("[0-9a-f]{16}", first)
            master.send_signal(signal.SIGHUP)
            second = until(lambda: (found := serving(port)) != first and found)
            answer = json.loads(ask(port, content=image_bytes())[1])["answers"][0]
            assert answer["fingerprint"] == second
        finally:
            master.terminate()
        assert master.wait(PATIENCE) == 0


@pytest.mark.parametrize("workers", ["2", None])
def test_a_model_that_is_none_is_told_in_a_line_at_the_start(tmp_path, workers):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no ONNX")
    code = "from chestxray.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", str(path), "--port", "0", *(["--workers", workers] * bool(workers))]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert made.returncode not in (0, -1) and made.stdout == ""
    (line,) = made.stderr.splitlines()
    assert line.startswith(f"Error: {path} is not an ONNX file")


def test_the_folder_of_the_counters_is_removed(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    with shared_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(folder)
    assert not folder.exists() and "PROMETHEUS_MULTIPROC_DIR" not in os.environ
