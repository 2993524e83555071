"""Parts in processes of this machine."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import parts_of_tests as doing
from chestxray.errors import InputError, WorkerError
from chestxray.execution import local, machine
from chestxray.execution.executor import chosen
from chestxray.execution.parts import ALL_GPUS, Part, PartFailed

TESTS = str(Path(__file__).parents[1])


def gone(pid, seconds=20):
    """Whether the process ends, or is a zombie, within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def appears(path, seconds=60):
    until = time.monotonic() + seconds
    while not path.exists() or not path.read_text():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)
    return path.read_text()


def test_each_part_has_a_process_and_its_lines_bear_its_name(caplog):
    parts = [Part(f"part {i}", doing.double, {"number": i}) for i in range(3)]
    with caplog.at_level(logging.INFO, "chestxray"):
        outcomes = {outcome.part.name: outcome.value() for outcome in local.run(parts, 2)}
    assert {name: value for name, (value, _) in outcomes.items()} == {"part 0": 0, "part 1": 2, "part 2": 4}
    assert len({pid for _, pid in outcomes.values()} | {os.getpid()}) == 4
    said = {(record.levelname, record.getMessage()) for record in caplog.records}
    for i in range(3):
        assert ("INFO", f"part {i} | doubling {i}") in said
        assert ("WARNING", f"part {i} | printed by a library") in said


def test_an_error_of_the_user_is_raised_as_it_was_and_a_defect_with_its_traceback(caplog):
    first, second = local.run([Part("a", doing.refuse), Part("b", doing.fail)], 1)
    with pytest.raises(InputError, match=r"^This cannot be used\.$"):
        first.value()
    with pytest.raises(PartFailed, match=r"(?s)^b failed in its worker:.*parts_of_tests.py.*ZeroDivisionError"):
        second.value()


def test_a_worker_that_is_killed_is_begun_again_and_one_that_always_dies_is_told(tmp_path, caplog):
    parts = [
        Part("once", doing.killed_until, {"folder": tmp_path, "times": 1}),
        Part("always", doing.killed_until, {"folder": tmp_path / "always", "times": 9}),
    ]
    once, always = local.run(parts, 1)
    assert once.value() == 2
    assert "once: its worker was killed by SIGKILL; it is begun again." in caplog.text
    with pytest.raises(WorkerError, match=r"killed by SIGKILL, 3 times\..*too little memory"):
        always.value()


def test_what_ends_the_iteration_ends_the_workers_and_whatever_they_have_started(tmp_path):
    parts = [Part("quick", doing.double, {"number": 1}), Part("long", doing.sleep, {"folder": tmp_path})]
    with closing(local.run(parts, 2)) as outcomes:
        assert next(outcomes).part.name == "quick"
        pids = [int(appears(tmp_path / name)) for name in ("own", "child")]
    assert all(gone(pid) for pid in pids)
    assert (tmp_path / "interrupted").exists(), "it was asked to end before it was killed"


DRIVER = """
import sys
sys.path.insert(0, {tests!r})
import parts_of_tests as doing
from pathlib import Path
from chestxray.execution import local
from chestxray.execution.parts import Part
list(local.run([Part("long", doing.sleep, {{"folder": Path({folder!r})}})], 1))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_ends_leaves_no_process(tmp_path, number):
    code = DRIVER.format(tests=TESTS, folder=str(tmp_path))
    driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        pids = [int(appears(tmp_path / name)) for name in ("own", "child")]
    finally:
        driver.send_signal(number)
    driver.wait(30)
    assert all(gone(pid) for pid in pids)


def test_each_gpu_is_given_to_one_part_at_a_time(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    parts = [Part(f"p{i}", doing.visible, {}, gpus=1) for i in range(3)] + [Part("both", doing.visible, {}, gpus=9)]
    found = {outcome.part.name: outcome.value() for outcome in local.run(parts, None)}
    assert {found[f"p{i}"] for i in range(2)} == {"3", "5"}
    assert found["both"] == "3,5" or found["both"] == "5,3"
    assert next(iter(local.run([Part("none", doing.visible)], 1))).value() == "-1"


def test_workers_are_as_many_as_devices_and_memory_allow(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 9)
    monkeypatch.setattr(machine, "memory", lambda: 10)
    light = [Part(str(i), doing.double, memory=1) for i in range(20)]
    assert machine.workers(light, []) == 2
    assert machine.workers(light[:1], []) == 1
    heavy = [Part(str(i), doing.double, memory=6, gpus=1) for i in range(20)]
    assert machine.workers(heavy, ["0", "1", "2"]) == 1
    assert machine.workers([Part("a", doing.double, gpus=ALL_GPUS, memory=1)] * 3, ["0", "1"]) == 1
    on_gpus = [Part(str(i), doing.double, memory=1, gpus=1) for i in range(20)]
    assert machine.workers(on_gpus, ["0", "1", "2"]) == 3


def test_the_gpus_of_this_machine_are_those_that_cuda_shows(monkeypatch):
    for given, names in {"": [], "-1": [], "0, 2": ["0", "2"], "1,-1,0": ["1"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert machine.gpus() == names
    assert machine.memory() > 2**20


@pytest.mark.parametrize("given", ["", "rays", "ray:", "ray://", "ray:host", "ray://host", "local:2", "ray://a:1/b"])
def test_an_unknown_executor_is_refused(given):
    with pytest.raises(InputError, match=r"executor must be local, ray .*Received: '"):
        chosen(given)


def test_numbers_of_an_executor_are_checked():
    assert chosen(None) is None
    with pytest.raises(InputError, match=r"workers must be at least 1\. Received: 0"):
        chosen("local", 0)
    with pytest.raises(InputError, match="part_memory must be above 0"):
        chosen(None, None, 0.0)
    assert chosen(None, None, 2.0).memory == 2 * 2**30
