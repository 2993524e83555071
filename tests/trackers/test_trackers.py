"""One run, interrupted and resumed, as TensorBoard, MLflow and Weights & Biases have it; and trackers that fail.

The real libraries, each without its server: event files, a database, offline files. No network.
"""

import json
import logging
import socket
import sqlite3
import struct

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

import made_runs
from chestxray.cli.main import group
from chestxray.runs.run_folder import Run
from chestxray.runs.trackers.tracking import Tracking, tracked

#: Trackers and the packages below them warn of one another's newer versions.
pytestmark = pytest.mark.filterwarnings("default")

PATIENT = "Mueller_Hans"
ALL = ("tensorboard", "mlflow", "wandb")
OPTIONS = (
    "--model", "shallow_cnn", "--image-size", "16", "--epochs", "3", "--batch-size", "8", "--replicates", "100",
    "--no-controls", "--heatmaps", "1", "--patient-pattern", "_(p[0-9]+)_",
)  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No address beyond this machine is reached, by a process that a tracker starts either."""
    connect = socket.socket.connect

    def local(self, address):
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost"), address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
    monkeypatch.chdir(tmp_path)


def invoke(*arguments):
    return CliRunner().invoke(group, [*arguments, *(f"--{name}" for name in ALL)], catch_exceptions=True)


@pytest.fixture
def logged(tmp_path, draw, monkeypatch):
    """A run that was interrupted after its first epoch and resumed; MLflow and TensorBoard have that epoch already,
    although the run does not know, as where it is killed between the two.
    """
    root = tmp_path / f"{PATIENT}s" / "films"
    for k, label in enumerate(("normal", "pneumonia")):
        for patient in range(16):
            draw(root / label / f"{PATIENT}_p{k}{patient:02d}_.png", 100 * k + patient)
    epochs = Tracking.epochs

    def interrupted(self):
        epochs(self)
        monkeypatch.setattr(Tracking, "epochs", epochs)
        raise KeyboardInterrupt

    monkeypatch.setattr(Tracking, "epochs", interrupted)
    first = invoke("run", *OPTIONS, "--data", f"folder:{root}", "--output", "run")
    assert "Continue it: chestxray run --resume run" in first.output, first.output
    state = tmp_path / "run" / "trackers" / "state.json"
    sent = json.loads(state.read_text())
    assert {name: one["epochs"] for name, one in sent.items()} == dict.fromkeys(ALL, 1)
    for name in ("tensorboard", "mlflow"):
        sent[name]["epochs"] = 0
    state.write_text(json.dumps(sent))
    again = invoke("run", "--resume", "run")
    assert again.exit_code == 0, again.output
    assert "not wholly logged" not in again.output
    done = json.loads(state.read_text())
    assert all(one["finished"] and one["epochs"] == 3 and one["id"] == sent[name]["id"] for name, one in done.items())
    return Run(tmp_path / "run")


@pytest.mark.slow
def test_every_tracker_has_the_whole_run_once_and_nothing_of_a_patient(logged, tmp_path):
    losses = [float(value) for value in logged.history["val_loss"]]
    auroc = logged.metrics["test"]["auroc"]
    _mlflow(logged, losses, auroc)
    _tensorboard(logged, losses, auroc)
    _wandb(logged, losses, auroc)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    trackers = [
        path for path in kept
        if path.is_relative_to(logged.folder / "trackers") or path.name == "mlflow.db" or "mlruns" in path.parts
        or "mlartifacts" in path.parts
    ]  # fmt: skip
    assert len(trackers) > 10
    for path in trackers:
        assert PATIENT not in str(path.relative_to(tmp_path))
        # Of what a tracker writes itself, paths of its own files may name the folder that it was told to write to.
        assert f"{PATIENT}_p".encode() not in path.read_bytes(), path
        assert f"{PATIENT}s".encode() not in path.read_bytes(), path


def _mlflow(run, losses, auroc):
    client = MlflowClient()
    (experiment,) = [found for found in client.search_experiments() if found.name == "chestxray"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["learning_rate"] == "0.001" and found.data.params["data"] == "folder"
    history = client.get_metric_history(found.info.run_id, "validation/loss")
    assert sorted((point.step, point.value) for point in history) == list(enumerate(losses, 1))
    assert found.data.metrics["test/auroc_low"] == auroc["low"]
    names = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert names == {"MODEL_CARD.md", "figures", "model.keras"}
    assert not [tag for tag in found.data.tags if tag not in ("mlflow.runName",)]


def _tensorboard(run, losses, auroc):
    events = EventAccumulator(str(run.folder / "trackers" / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("validation/loss")]
    assert [step for step, _ in found] == [1, 2, 3]
    assert [value for _, value in found] == pytest.approx(losses)
    assert events.Scalars("test/auroc")[0].value == pytest.approx(auroc["value"])
    assert {"figures/roc", "figures/training_curves"} <= set(events.Tags()["images"])
    (card,) = events.Tensors("card")
    assert b"shallow" in card.tensor_proto.string_val[0]


def _wandb(run, losses, auroc):
    rows, summary, config = [], {}, {}
    files = sorted((run.folder / "trackers" / "wandb").rglob("*.wandb"))
    # Offline, the resumed part is a file of its own, with the id of the first; `wandb sync` joins them.
    assert len(files) == 2 and len({path.name for path in files}) == 1
    for path in files:
        for record in _records(path):
            rows += [{item.key or "/".join(item.nested_key): json.loads(item.value_json)
                      for item in record.history.item}] if record.HasField("history") else []  # fmt: skip
            for item in record.summary.update:
                summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
            for part in (record.run.config.update, record.config.update):
                config |= {item.key: json.loads(item.value_json) for item in part}
    found = [(row["_step"], row["validation/loss"]) for row in rows if "validation/loss" in row]
    assert found == list(enumerate(losses, 1))
    assert summary["test/auroc"] == auroc["value"]
    assert config["model"] == "shallow_cnn" and config["data"] == "folder"


def _records(path):
    """The records of a file of wandb: a log of LevelDB (blocks of 32 kB, in them pieces of a checksum, a length and a
    kind) after seven bytes of its own. Its Python package has no reader.
    """
    content, whole, place = path.read_bytes(), b"", 7
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def said(caplog):
    """What chestxray has said; clients of HTTP and databases have more to say."""
    return [record.message for record in caplog.records if record.name.startswith("chestxray")]


@pytest.fixture
def made(tmp_path):
    return made_runs.write_run(tmp_path / "made", made_runs.TWO)


def test_a_server_that_is_gone_costs_a_line_and_not_the_run(made, monkeypatch, caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Bound and not listening: every connection is refused.
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with caplog.at_level(logging.WARNING, "chestxray"), tracked(["mlflow", "tensorboard"]) as tracking:
            tracking.begin(made)
            tracking.epochs()
            assert set(tracking.trackers) == {"tensorboard"}
            assert said(caplog)[0].startswith("mlflow failed")
            tracking.finish()
    assert "not wholly logged to mlflow" in said(caplog)[-1]
    assert "--resume" in said(caplog)[-1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made.parent}/later.db")
    with tracked(["mlflow", "tensorboard"]) as tracking:
        tracking.begin(made)
        assert set(tracking.trackers) == {"mlflow"}
        tracking.finish()
    (found,) = MlflowClient().search_runs(["1"])
    assert len(MlflowClient().get_metric_history(found.info.run_id, "train/loss")) == 7


def test_a_store_that_breaks_in_the_middle_is_left_out(made, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "chestxray"), tracked(["mlflow"]) as tracking:
        tracking.begin(made)
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            database.execute("DROP TABLE metrics")
        tracking.finish()
    assert list(tracking.failures) == ["mlflow"]
    assert len(said(caplog)) == 2 and not any("\n" in line for line in said(caplog))


def test_a_place_that_cannot_be_written_is_a_line(made, caplog):
    (made / "trackers").mkdir()
    (made / "trackers" / "tensorboard").write_text("in the way")
    with caplog.at_level(logging.WARNING, "chestxray"), tracked(["tensorboard"]) as tracking:
        tracking.begin(made)
        tracking.finish()
    assert "tensorboard failed" in said(caplog)[0] and "FileExistsError" in said(caplog)[0]


def test_a_run_that_is_interrupted_says_so_to_its_tracker(made):
    with pytest.raises(KeyboardInterrupt), tracked(["mlflow"]) as tracking:
        tracking.begin(made)
        raise KeyboardInterrupt
    client = MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("chestxray").experiment_id])
    assert found.info.status == "KILLED"
