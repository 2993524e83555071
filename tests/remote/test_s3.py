"""Runs that are written to S3 and read from there: the real s3fs and aiobotocore, and a server on loopback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

#: So many that the run is still training when its first state is at the address.
EPOCHS = 200
CHESTXRAY = [sys.executable, "-c", "from chestxray.cli.main import main; main()"]
TINY = ["--model", "shallow_fc", "--image-size", "16", "--batch-size", "8", "--patience", "0", "--replicates", "100"]


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """The name of an empty bucket; what the environment says of S3 points to the server."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    store = boto3.client("s3")
    name = f"films-{time.monotonic_ns()}"
    store.create_bucket(Bucket=name)
    return name


def names(bucket):
    found = boto3.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])
    return {item["Key"] for item in found}


def call(machine, *arguments):
    """Call the command on a `machine`, which has a working folder and a cache of its own."""
    machine.mkdir(exist_ok=True)
    environment = os.environ | {"CHESTXRAY_CACHE": str(machine / "cache")}
    command = [*CHESTXRAY, *map(str, arguments)]
    return subprocess.run(command, cwd=machine, env=environment, capture_output=True, text=True, timeout=400)


def test_a_run_that_was_killed_goes_on_from_its_address_on_another_machine(bucket, folder, tmp_path):
    address = f"s3://{bucket}/runs/first"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    command = ["run", *TINY, "--data", f"folder:{folder}", "--epochs", str(EPOCHS), "--output", address]
    environment = os.environ | {"CHESTXRAY_CACHE": str(first / "cache")}
    from chestxray.storage import remote

    with subprocess.Popen([*CHESTXRAY, *command], cwd=first, env=environment, stderr=subprocess.PIPE) as process:
        ended = time.monotonic() + 300
        # A file counts once it is in the list, which is written after the files.
        while not any("/epoch-" in name for name in remote.Mirror(address).files):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < ended
            time.sleep(0.2)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    done = len((remote.fetched(address) / "history.csv").read_text().splitlines()) - 1
    assert 1 <= done < EPOCHS
    result = call(second, "run", "--resume", address)
    assert result.returncode == 0, result.stderr
    assert f"Copied to {address}" in result.stderr
    assert f"Epoch {done} of {EPOCHS}" not in result.stderr, "what is at the address is not trained again"
    assert len((remote.fetched(address) / "history.csv").read_text().splitlines()) - 1 == EPOCHS
    keys = {key.removeprefix("runs/first/") for key in names(bucket)}
    assert {"model.keras", "report.html", "predictions.csv", "recipe.toml"} <= keys
    assert not [key for key in keys if key.startswith("state/")], "what only a resumption needs is deleted"
    third = tmp_path / "third"
    film = next(folder.rglob("*.png"))
    answers = call(third, "predict", address, film)
    assert answers.returncode == 0, answers.stderr
    assert len(answers.stdout.splitlines()) == 2
    refused = call(third, "run", *TINY, "--data", f"folder:{folder}", "--output", address)
    assert refused.returncode == 2
    assert "--overwrite to replace that run" in refused.stderr
    import chestxray

    run = chestxray.load(address)
    assert run.evaluation.rows == 48 - len(run.index.rows.query("split != 'test'"))
    compared = call(third, "compare", address, address)
    assert "Traceback" not in compared.stderr


@pytest.mark.parametrize(
    ("change", "address", "said"),
    [
        ({}, "s3://no-such-bucket-here/run", "There is no folder of chestxray"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://films/run", "cannot be read: "),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "s3://films/run", "cannot be read: "),
    ],
    ids=["no bucket", "no server", "no credentials"],
)
def test_a_store_that_cannot_be_read_is_one_line(bucket, tmp_path, monkeypatch, change, address, said):
    for name, value in change.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    result = call(tmp_path, "predict", address, "film.png")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert said in result.stderr.splitlines()[-1]


def test_a_bucket_that_is_not_there_stops_a_run_before_it_trains(bucket, folder, tmp_path):
    command = ["run", *TINY, "--data", f"folder:{folder}", "--epochs", "1", "--output", "s3://no-such-bucket-here/run"]
    result = call(tmp_path, *command)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "cannot be written" in result.stderr.splitlines()[-1]
    assert "Epoch" not in result.stderr


def test_the_store_is_lost_in_the_middle(bucket, server, tmp_path, monkeypatch, caplog):
    """Copying is tried again; when it fails to the end, the files are kept and named."""
    from chestxray.errors import OutputError
    from chestxray.storage import remote

    monkeypatch.setattr(remote, "INTERVAL", 0.1)
    address = f"s3://{bucket}/run"
    kept = Path()
    with pytest.raises(OutputError, match="All files are kept in") as raised, remote.working(address) as work:
        work.mkdir()
        (work / "a").write_text("1")
        # The list that names it is written last: until then the bucket may be written to, and cannot be deleted.
        while "a" not in remote.Mirror(address).files:
            time.sleep(0.1)
        kept = work
        store = boto3.client("s3")
        for name in names(bucket):
            store.delete_object(Bucket=bucket, Key=name)
        store.delete_bucket(Bucket=bucket)
        (work / "a").write_text("22")
        ended = time.monotonic() + 300
        while "Copying is tried again" not in caplog.text:
            assert time.monotonic() < ended
            time.sleep(0.1)
    assert str(kept) in str(raised.value)
    assert (kept / "a").read_text() == "22"
