"""A command that needs Keras says in one line that it does not work with the backend that the environment names."""

import json
import os
import subprocess
import sys

import pytest

from made_runs import write_run

#: Calls each command in its turn, as `chestxray` does; none may get so far as to import keras.
SCRIPT = """
import contextlib, io, json, sys
from chestxray.cli.main import main
told = []
for arguments in json.load(sys.stdin):
    sys.argv = ["chestxray", "--quiet", *arguments]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = repr(error)
    told.append([code, said.getvalue(), "keras" in sys.modules])
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = str(write_run(folder / "run"))
    # Never opened: the backend is looked at first.
    (folder / "run" / "model.keras").write_bytes(b"")
    data = ("--data", "phantom:images=24,size=32")
    return {
        "run": ("run", "--model", "shallow_cnn", *data, "--output", str(folder / "new")),
        "predict": ("predict", run, str(folder)),
        "serve": ("serve", run, "--port", "0"),
        "export": ("export", run, "--format", "onnx"),
        "evaluate": ("evaluate", run, *data),
        "plugin": ("plugin", "check", "shallow_cnn"),
        "models": ("models", "shallow_cnn", "--benchmark"),
        "compare": (
            "compare",
            "--model",
            "shallow_cnn",
            "--model",
            "vgg16",
            *data,
            "--output",
            str(folder / "compared"),
        ),
        "leakage": ("leakage", "--model", "shallow_cnn", *data, "--output", str(folder / "leaks")),
    }


def told(backend, commands):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(list(commands.values())), capture_output=True, text=True,
        env={**os.environ, "KERAS_BACKEND": backend}, check=True,
    )  # fmt: skip
    return dict(zip(commands, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_a_backend_that_does_not_work_is_one_line(commands):
    line = "Error: The backend must be tensorflow or jax. Received: 'torch'.\n"
    assert told("torch", commands) == {name: [2, line, False] for name in commands}


def test_what_does_not_work_with_jax_says_so_in_one_line(commands):
    for name, (code, line, imported) in told("jax", {k: v for k, v in commands.items() if k != "run"}).items():
        assert (code, imported) == (2, False), name
        assert line.count("\n") == 1 and "computes with TensorFlow here; JAX is for `chestxray run`" in line, line
