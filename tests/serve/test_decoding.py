"""Decoding in processes: limits of time and memory, a process that breaks, and the same pixels as without."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from chestxray.data.images import reading
from chestxray.serve import decoding
from chestxray.serve.app import create_app
from chestxray.serve.decoding import Decoders
from chestxray.serve.errors import RequestProblem
from chestxray.serve.settings import Settings
from hostile_images import dicom, jpeg2000, png
from serve.fakes import image_bytes, listening, post, served

WAY = ((24, 32), "stretch")
UNIX = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows has no such signals")


def later(seconds=60.0):
    return time.monotonic() + seconds


def problem(decoders, content, seconds=60.0, max_pixels=40_000_000):
    with pytest.raises(RequestProblem) as raised:
        decoders.decode(content, [WAY], (), max_pixels, later(seconds))
    return raised.value.status, raised.value.code


@pytest.fixture
def alone():
    """One process of this test's own, with little memory."""
    made = Decoders(Settings(threads=1, max_pixels=1_000_000, max_upload=1_000_000))
    made.start()
    yield made
    made.close()


def test_pixels_are_those_of_predict(decoders):
    content = image_bytes(90, size=(500, 400), kind="JPEG")
    ways = [WAY, ((64, 64), "pad"), ((50, 20), "crop")]
    found = decoders.decode(content, ways, [WAY], 1_000_000, later())
    assert (found.width, found.height) == (500, 400)
    for pixels, (size, fit) in zip(found.pixels, ways, strict=True):
        assert np.array_equal(pixels, reading.decode(content, size=size, fit=fit).pixels)
    assert found.pictures[0].startswith("data:image/png;base64,")


def test_reasons_come_through_and_the_process_goes_on(alone):
    assert problem(alone, b"\x89PNG\r\n\x1a\n") == (422, "unreadable")
    assert problem(alone, image_bytes(), max_pixels=10) == (413, "too_many_pixels")
    first = alone._idle.queue[0]
    assert alone.decode(image_bytes(), [WAY], (), 1_000_000, later()).pixels[0].shape == (24, 32)
    assert alone._idle.queue[0] is first and not first.ended()


def stopped(decoders):
    """The process that would do the next job, held still as if its decoder did not come to an end."""
    decoders.decode(image_bytes(), [WAY], (), 1_000_000, later())
    process = decoders._idle.queue[-1]
    os.kill(process._process.pid, signal.SIGSTOP)
    return process


@UNIX
def test_what_takes_too_long_is_ended_and_the_next_image_answered(alone):
    process = stopped(alone)
    begun = time.monotonic()
    assert problem(alone, image_bytes(), seconds=0.3) == (503, "timeout")
    assert time.monotonic() - begun < 10 and process.ended()
    assert alone.decode(image_bytes(), [WAY], (), 1_000_000, later()).width == 40


@UNIX
def test_a_process_ends_itself_where_nobody_is_left_to_do_it():
    code = "import time; from chestxray.serve.decoder import at_most\nwith at_most(0.3): time.sleep(100)"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=90)
    assert done.returncode == -signal.SIGALRM


def test_what_needs_too_much_memory_is_refused_and_the_next_image_answered(alone):
    # 160 million bytes as it is stored; a hundred as grey.
    large = png(10_000, 10_000, bits=8, colour=0, rows=bytes(10_001) * 10_000)
    assert len(large) < 200_000
    assert problem(alone, large, max_pixels=200_000_000) == (422, "unreadable")
    size = (4000, 3500)
    changes = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}
    coded = dicom(".4.90", jpeg2000(size, "I;16"), size, **changes)
    assert problem(alone, coded, max_pixels=200_000_000) == (422, "unreadable")
    assert alone.decode(image_bytes(), [WAY], (), 1_000_000, later()).width == 40


@UNIX
def test_a_process_that_breaks_is_replaced(alone):
    alone.decode(image_bytes(), [WAY], (), 1_000_000, later())
    process = alone._idle.queue[-1]._process
    process.kill()
    process.wait()
    assert alone.decode(image_bytes(), [WAY], (), 1_000_000, later()).width == 40
    process = stopped(alone)
    threading.Timer(0.5, os.kill, (process._process.pid, signal.SIGKILL)).start()
    assert problem(alone, image_bytes()) == (422, "unreadable")
    assert alone.decode(image_bytes(), [WAY], (), 1_000_000, later()).width == 40


def test_a_process_that_says_nonsense_is_no_answer(alone, monkeypatch):
    nonsense = (None, [], {}, {"kind": 7}, {"kind": "fine", "pictures": "ab"}, {"kind": "defect", "raised": 7})
    for said in (*nonsense, {"kind": "fine", "pictures": [10**11]}, {"kind": "fine", "pictures": [-1]}):
        process = alone._idle.queue[-1] or alone.start() or alone._idle.queue[-1]
        assert process._ready.wait(60)
        with monkeypatch.context() as patched, pytest.raises(RequestProblem):
            patched.setattr(decoding.json, "loads", lambda text, said=said: said)
            alone.decode(image_bytes(), [WAY], [WAY], 1_000_000, later())
        assert process.ended()
    assert alone.decode(image_bytes(), [WAY], (), 1_000_000, later()).width == 40


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="Linux tells limits in /proc")
def test_a_process_can_write_no_file_and_sees_no_tensorflow(alone):
    alone.decode(image_bytes(), [WAY], (), 1_000_000, later())
    about = Path("/proc") / str(alone._idle.queue[0]._process.pid)
    lines = {line[:25].strip(): line[26:46].strip() for line in (about / "limits").read_text().splitlines()}
    assert lines["Max file size"] == "0" and lines["Max core file size"] == "0"
    assert lines["Max address space"] != "unlimited"
    assert "tensorflow" not in (about / "maps").read_text()


@UNIX
def test_closing_ends_what_is_decoded(alone):
    stopped(alone)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(problem, alone, image_bytes())
        time.sleep(0.5)
        begun = time.monotonic()
        alone.close()
        assert asked.result(60) == (503, "busy") and time.monotonic() - begun < 10
    assert problem(alone, image_bytes()) == (503, "busy")


@UNIX
def test_a_decoder_without_end_leaves_the_server_answering(alone):
    def ask():
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("POST", "/api/predict", image_bytes(), {"Content-Type": "image/png"})
            return connection.getresponse().status

    with listening(threads=1, timeout=3.0, per_minute=0, decoders=alone) as port:
        stopped(alone)
        begun = time.monotonic()
        assert ask() == 503
        while ask() != 200:
            assert time.monotonic() - begun < 60


def test_a_defect_of_the_decoder_is_told_to_nobody_but_the_log():
    class Defective:
        def decode(self, *_):
            raise decoding.Undecoded("KeyError", ["images.py:1 decode"])

        def close(self):
            pass

    app = create_app(served(), Settings(threads=1), None, Defective())
    told = post(app.test_client(), image_bytes())
    assert told.status_code == 500 and "images.py" not in told.get_data(as_text=True)
    app.extensions["chestxray"].close()
