"""Parts on a Ray cluster: two nodes of this machine, of which one is lost in the middle."""

import logging
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

# Ray's workers give way to everything else (nice 15), with which a busy machine would take minutes.
os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
# What a worker of a node is to find as the driver does.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

import ray
from ray.cluster_utils import Cluster

import parts_of_tests as doing
from chestxray.data import decoding_parts, sources
from chestxray.data.decoded import decode
from chestxray.errors import InputError, WorkerError
from chestxray.execution import ray_cluster
from chestxray.execution.executor import Executor
from chestxray.execution.parts import Part, PartFailed
from chestxray.recipe import Recipe
from chestxray.studies import study

NODE = {"num_cpus": 1, "memory": 2**33, "object_store_memory": 10**8, "include_dashboard": False}


@pytest.fixture
def cluster():
    made = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def recipe():
    return Recipe(
        model="shallow_cnn",
        data=("phantom",),
        data_option=("patients=24",),
        image_size=32,
        epochs=1,
        batch_size=16,
        folds=2,
        replicates=100,
        heatmaps=0,
        controls=False,
        refuse=0,
        deterministic=True,
    )


def answers(made):
    return {part.name: (made.folder / "parts" / part.name / "predictions.csv").read_bytes() for part in made.parts}


def on(cluster, **options):
    return Executor("ray", cluster.address, **{"memory": 2**30} | options)


def test_parts_come_back_with_values_errors_and_names(cluster, capfd, caplog):
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    parts = [
        Part("the double", doing.double, {"number": 4}, gpus=3),
        Part("refused", doing.refuse),
        Part("defect", doing.fail),
        # More than any node has: it is given what there is.
        Part("heavy", doing.double, {"number": 5}, memory=2**50),
    ]
    with caplog.at_level(logging.INFO, "chestxray"):
        outcomes = {outcome.part.name: outcome for outcome in on(cluster, workers=2).run(parts)}
    value, pid = outcomes["the double"].value()
    assert value == 8
    assert pid not in (os.getpid(), outcomes["heavy"].value()[1]), "a process of its own"
    with pytest.raises(InputError, match=r"^This cannot be used"):
        outcomes["refused"].value()
    with pytest.raises(PartFailed, match=r"(?s)^defect failed in its worker:.*ZeroDivisionError"):
        outcomes["defect"].value()
    # What a worker prints comes after its answer.
    printed, until = "", time.monotonic() + 60
    while not ("(the double " in printed and "doubling 4" in printed):
        assert time.monotonic() < until, printed
        time.sleep(0.2)
        printed += "".join(capfd.readouterr())
    assert "not to be seen" not in printed


def test_a_worker_that_is_killed_is_begun_again_and_one_that_always_dies_is_told(cluster, tmp_path):
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    parts = [
        Part("once", doing.killed_until, {"folder": tmp_path / "once", "times": 1}),
        Part("always", doing.killed_until, {"folder": tmp_path / "always", "times": 9}),
    ]
    outcomes = {outcome.part.name: outcome for outcome in on(cluster).run(parts)}
    assert outcomes["once"].value() == 2
    with pytest.raises(WorkerError, match="its worker died each time"):
        outcomes["always"].value()
    assert len(list((tmp_path / "always").iterdir())) == 1 + ray_cluster.RETRIES


def test_a_study_ends_right_although_a_node_is_lost(cluster, tmp_path):
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    cluster.wait_for_nodes()
    folder = tmp_path / "by_ray"
    lost = []

    def lose():
        # Both nodes are at work on a part, which a file of its state shows.
        while len(list(folder.glob("parts/*/index.parquet"))) < 2:
            time.sleep(0.05)
        lost.append(sorted(path.parent.name for path in folder.glob("parts/*/index.parquet")))
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=lose, daemon=True)
    killer.start()
    by_ray = study.run([recipe()], folder, tmp_path / "cache", executor=on(cluster))
    killer.join()
    assert lost == [[part.name for part in by_ray.parts]]
    by_local = study.run([recipe()], tmp_path / "by_local", tmp_path / "cache", executor=Executor(workers=1))
    assert answers(by_ray) == answers(by_local)
    # The same command again has nothing to do.
    before = {path: path.stat().st_mtime_ns for path in folder.glob("parts/*/model.keras")}
    study.run([recipe()], folder, tmp_path / "cache", executor=on(cluster))
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("parts/*/model.keras")}


def test_a_folder_that_a_node_does_not_see_is_told(cluster, tmp_path, monkeypatch):
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    # Another study by the same path, as a node with a disk of its own would have.
    write = study.write_json
    monkeypatch.setattr(study, "write_json", lambda path, content: write(path, content | {"made": "here"}))
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, **k: read(self, **k) + " " * (self.name == "study.json"))
    with pytest.raises(InputError, match=r"does not see the study in .*--output must be a folder that every node sees"):
        study.run([recipe()], tmp_path / "s", tmp_path / "cache", executor=on(cluster))


def test_the_nodes_decode_and_the_driver_keeps_it(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding_parts, "FEWEST", 64)
    for _ in range(2):
        cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    images = sources.load_index(recipe().replace(data_option=("patients=100",)), tmp_path)
    assert len(images) > 2 * decoding_parts.FEWEST, "several shares"
    by_ray = decode(images, (16, 12), "stretch", tmp_path / "by_ray", executor=on(cluster))
    alone = decode(images, (16, 12), "stretch", tmp_path / "alone", processes=1)
    np.testing.assert_array_equal(by_ray.pixels, alone.pixels)
    pd.testing.assert_frame_equal(by_ray.facts, alone.facts)


def test_a_node_with_another_version_is_refused(cluster, monkeypatch):
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    monkeypatch.setattr(ray_cluster, "VERSION", "0.0.0")
    (outcome,) = on(cluster).run([Part("one", doing.double, {"number": 1})])
    with pytest.raises(InputError, match=r"has chestxray .* and the driver 0\.0\.0; every node needs the driver's"):
        outcome.value()


def test_ray_alone_starts_a_cluster_here_and_ends_it(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (outcome,) = Executor("ray").run([Part("one", doing.double, {"number": 1})])
    assert outcome.value()[0] == 2
    assert not ray.is_initialized()


def test_an_address_where_no_cluster_is_is_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(WorkerError, match=f"Ray cannot be reached at 127.0.0.1:{port}"):
        list(Executor("ray", f"127.0.0.1:{port}").run([Part("one", doing.double, {"number": 1})]))
