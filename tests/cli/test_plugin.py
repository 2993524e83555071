"""`chestxray plugin check` and `chestxray plugin new`: output, JSON, exit codes."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from chestxray.cli.plugin import command
from chestxray.errors import ChestXrayError, InputError, PluginError
from chestxray.testing.model_suite import MODEL_CHECKS

MODULE = """
from dataclasses import replace
from keras import layers
from chestxray.plugin import ModelPlugin

print("a plugin that talks")

def build(scaled, weights):
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="first")(scaled)
    return layers.Conv2D(6, 3, padding="same", activation="relu", name="last")(x)

good = ModelPlugin(
    build=build,
    scale=lambda pixels: layers.Rescaling(1 / 255)(pixels),
    image_size=(24, 24),
    minimum_size=(16, 16),
    cam_layer="last",
    finetune_from="last",
    reference="none: made for a test",
    licence="Apache-2.0",
)
bad = replace(good, reference="", cam_layer=None)
"""


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """Two models, a good and a bad one, installed as a distribution."""
    (tmp_path / "strangers.py").write_text(MODULE)
    info = tmp_path / "strangers-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[chestxray.models]\ngood = strangers:good\nbad = strangers:bad\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("strangers", None)


def invoke(*arguments):
    """The result of a command, as `chestxray.cli.main` gets it: errors are raised."""
    result = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    if isinstance(result.exception, ChestXrayError):
        raise result.exception
    return result


def test_a_table_of_passes_and_skips(strangers):
    result = invoke("check", "good", "--only", "fields", "--only", "metadata")
    assert result.return_value == 0
    assert "fields" in result.stdout and "passed" in result.stdout
    assert "strangers:good 1.2: 2 passed" in result.stdout


def test_a_failure_gives_reason_and_exit_code_1(strangers):
    result = invoke("check", "strangers:bad", "--only", "metadata")
    assert result.return_value == 1
    assert "reference is empty" in result.stdout
    assert "1 failed" in result.stdout


def test_json_is_pure_whatever_the_plugin_prints(strangers):
    result = invoke("check", "bad", "--only", "fields", "--only", "metadata", "--only", "cam_layer", "--json")
    told = json.loads(result.stdout)
    assert result.return_value == 1
    assert {key: told[key] for key in ("plugin", "kind", "distribution", "version", "passed")} == {
        "plugin": "bad", "kind": "model", "distribution": "strangers", "version": "1.2", "passed": False,
    }  # fmt: skip
    assert [(row["name"], row["outcome"]) for row in told["checks"]] == [
        ("fields", "passed"), ("metadata", "failed"), ("cam_layer", "skipped"),
    ]  # fmt: skip


def test_unknown_names_are_the_users_errors(strangers):
    with pytest.raises(PluginError, match=r"Unknown model 'godo'.*Did you mean good"):
        invoke("check", "godo")
    with pytest.raises(InputError, match=r"Unknown check 'metdata'.*Did you mean metadata"):
        invoke("check", "good", "--only", "metdata")


def test_a_source_needs_an_address_and_a_model_takes_none(strangers):
    with pytest.raises(InputError, match="--address with a PATH of class folders"):
        invoke("check", "folder", "--kind", "source")
    with pytest.raises(InputError, match="for sources"):
        invoke("check", "good", "--address", "x")
    with pytest.raises(InputError, match="NAME=VALUE"):
        invoke("check", "folder", "--kind", "source", "--address", "x", "--data-option", "names")


def test_a_source_is_checked(folder):
    result = invoke("check", "folder", "--kind", "source", "--address", str(folder), "--json")
    assert result.return_value == 0
    checks = json.loads(result.stdout)["checks"]
    assert [row["name"] for row in checks if row["outcome"] != "passed"] == ["open"]


def test_new_says_what_it_wrote_and_what_comes_next(tmp_path):
    result = invoke("new", "my_model", "--path", str(tmp_path / "new"))
    assert f"Wrote {tmp_path / 'new' / 'chestxray_my_model.py'}" in result.stdout
    assert f"pip install -e {tmp_path / 'new'} && chestxray plugin check my_model" in result.stdout
    result = invoke("new", "my_source", "--path", str(tmp_path / "source"), "--kind", "source")
    assert "chestxray plugin check my_source --kind source --address PATH" in result.stdout


def test_new_refuses(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="holds something"):
        invoke("new", "my_model", "--path", str(tmp_path))
    with pytest.raises(InputError, match="lower-case"):
        invoke("new", "My-Model", "--path", str(tmp_path / "new"))


@pytest.mark.slow
def test_the_whole_suite_as_a_user_runs_it(strangers):
    code = (
        "import sys\n"
        "from chestxray.cli import main\n"
        "main.COMMANDS.setdefault('plugin', '')\n"
        "sys.argv[1:] = ['plugin', 'check', 'good', '--json']\n"
        "main.main()"
    )
    path = os.pathsep.join([str(strangers), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert [row["name"] for row in told["checks"]] == [check.name for check in MODEL_CHECKS]
    assert {row["outcome"] for row in told["checks"]} <= {"passed", "skipped"}
