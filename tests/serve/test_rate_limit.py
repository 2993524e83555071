"""Too many requests, too much at once, too long: 429 and 503, and never more work than was allowed."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from chestxray.errors import InputError
from chestxray.serve.errors import RequestProblem
from chestxray.serve.prediction import Gate
from chestxray.serve.rate_limit import CLIENTS, Limit, SharedLimit
from chestxray.serve.settings import Settings
from serve.fakes import BrightEngine, image_bytes, post


def test_a_client_that_asks_too_often(make_client):
    client = make_client(per_minute=2)
    assert [post(client, image_bytes()).status_code for _ in range(3)] == [200, 200, 429]
    response = post(client, image_bytes())
    assert response.get_json()["error"]["code"] == "too_often"
    assert 1 <= int(response.headers["Retry-After"]) <= 30
    assert client.get("/healthz").status_code == 200
    other = post(client, image_bytes(), environ_base={"REMOTE_ADDR": "192.0.2.7"})
    assert other.status_code == 200


def test_the_bucket_fills_again_and_few_clients_are_remembered():
    now = [0.0]
    limit = Limit(60, clock=lambda: now[0])
    for _ in range(60):
        limit.take("a")
    with pytest.raises(RequestProblem) as problem:
        limit.take("a")
    assert problem.value.retry_after == 1
    now[0] = 1.0
    limit.take("a")
    for number in range(CLIENTS + 10):
        limit.take(str(number))
    assert len(limit._buckets) == CLIENTS
    unlimited = Limit(0)
    for _ in range(1000):
        unlimited.take("a")


def test_no_more_at_once_than_allowed(make_client):
    hold = threading.Event()
    engine = BrightEngine(hold=hold)
    client = make_client(engine, threads=1, waiting=1)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(post, client, image_bytes())
        assert engine.begun.wait(60)
        second = pool.submit(post, client.application.test_client(), image_bytes())
        deadline = time.monotonic() + 60
        while "in_progress 2.0" not in (text := client.get("/metrics").get_data(as_text=True)):
            assert time.monotonic() < deadline, text
        third = post(client.application.test_client(), image_bytes())
        assert third.status_code == 503
        assert third.get_json()["error"]["code"] == "busy"
        assert third.headers["Retry-After"] == "1"
        assert client.get("/healthz").status_code == 200
        hold.set()
        assert first.result().status_code == second.result().status_code == 200
    assert post(client, image_bytes()).status_code == 200


def test_an_answer_that_takes_too_long(make_client):
    hold = threading.Event()
    client = make_client(BrightEngine(hold=hold), threads=1, waiting=0, timeout=2.0)
    response = post(client, image_bytes())
    assert (response.status_code, response.get_json()["error"]["code"]) == (503, "timeout")
    # What cannot be stopped still holds its place.
    assert post(client, image_bytes()).get_json()["error"]["code"] == "busy"
    hold.set()
    deadline = time.monotonic() + 60
    while post(client, image_bytes()).status_code != 200:
        assert time.monotonic() < deadline


def test_work_that_fails_frees_its_place_and_tells_its_own_error():
    gate = Gate(Settings(threads=1, waiting=0))
    for error in (ValueError, TimeoutError):

        def work(deadline, error=error):
            raise error

        for _ in range(3):
            with pytest.raises(error):
                gate.run(work)
    assert gate.run(lambda deadline: 7) == 7
    gate.close()


@pytest.mark.parametrize("changes", [{"threads": 0}, {"timeout": 0}, {"max_upload": -1}, {"waiting": -1}])
def test_settings_that_make_no_sense(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        Settings(**{"threads": 1, **changes})


def test_a_process_waits_for_the_one_that_makes_the_shared_count(tmp_path):
    """SQLite itself does not wait for every lock: of four processes that began at once one failed in 5% of starts."""
    path = tmp_path / "limit.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE it (x)")
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.close)
    release.start()
    limit = SharedLimit(60, path, b"key")
    release.join()
    limit.close()
