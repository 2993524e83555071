"""Distributions as an installer lays them down: two that claim one name, a broken one, one turned off."""

import importlib
import json
import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from chestxray import registry
from chestxray.cli import plugin_listing
from chestxray.cli.models import command as models
from chestxray.errors import PluginError

PLUGIN = """
from chestxray.plugin import ModelPlugin, SourcePlugin
plugin = ModelPlugin(build=None, scale=None, image_size=(24, 24), reference={distribution!r})
source = SourcePlugin(load=None, address_help={distribution!r})
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that puts a distribution with one module and one entry point on the path."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    laid = []

    def lay(distribution, name, *, version="1.0", group=registry.MODELS, attribute="plugin", code=PLUGIN):
        module = distribution.replace("-", "_")
        laid.append(module)
        (site / f"{module}.py").write_text(code.replace("{distribution!r}", repr(distribution)))
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:{attribute}\n")

        importlib.invalidate_caches()

    yield lay
    for module in laid:  # the next test lays another of this name
        sys.modules.pop(module, None)


def reasons_by_name(**options):
    return {listed.entry.name: listed.reason for listed in plugin_listing.survey(registry.MODELS, **options)}


def test_a_strangers_distribution_is_found_once_it_is_installed(install):
    assert "claimed_net" not in {entry.name for entry in registry.entries(registry.MODELS)}
    install("stranger-one", "claimed_net", version="2.5")
    entry = registry.find(registry.MODELS, "claimed_net")
    assert (entry.distribution, entry.version) == ("stranger-one", "2.5")
    assert registry.load_plugin(registry.MODELS, "claimed_net").reference == "stranger-one"


@pytest.mark.parametrize(
    ("group", "attribute"), [(registry.MODELS, "plugin"), (registry.SOURCES, "source")], ids=["model", "source"]
)
def test_a_plugin_for_a_newer_contract_is_refused_in_one_line(install, group, attribute):
    install(
        "stranger-new",
        "newer",
        group=group,
        attribute=attribute,
        code=PLUGIN.replace("image_size", "api=99, image_size").replace("load", "api=99, load"),
    )
    with pytest.raises(PluginError, match=r"stranger-new:newer 1.0 is written for version 99 .* upgrade") as raised:
        registry.load_plugin(group, "newer")
    assert "\n" not in str(raised.value)


def test_two_claims_are_an_error_that_names_both_and_how_to_choose(install):
    install("stranger-one", "claimed_net")
    install("stranger-two", "claimed_net", version="2.0")
    with pytest.raises(PluginError) as raised:
        registry.find(registry.MODELS, "claimed_net")
    for words in ("claimed by", "stranger-one:claimed_net 1.0", "stranger-two:claimed_net 2.0", "Choose one"):
        assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("distribution", ["stranger-one", "stranger-two"])
def test_the_full_name_chooses(distribution, install):
    install("stranger-one", "claimed_net")
    install("stranger-two", "claimed_net")
    plugin = registry.load_plugin(registry.MODELS, f"{distribution}:claimed_net")
    assert plugin.reference == distribution


def test_a_claim_on_one_of_ours_is_an_error_too_and_ours_can_be_chosen(install):
    install("stranger-one", "folder", group=registry.SOURCES, attribute="source")
    with pytest.raises(
        PluginError, match=r"data source 'folder' is claimed by chestxray:folder .* stranger-one:folder"
    ):
        registry.find(registry.SOURCES, "folder")
    assert registry.find(registry.SOURCES, "chestxray:folder").distribution == "chestxray"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("1 / 0", "ZeroDivisionError"),
        ("plugin = 'a string'", "must be a ModelPlugin. Received: str"),
        ("def broken(:", "SyntaxError"),
        ("other = 1", "AttributeError"),
    ],
    ids=["missing import", "crash", "no plugin", "no Python", "no such attribute"],
)
def test_a_broken_plugin_is_told_with_its_reason_and_disturbs_nobody(code, reason, install):
    install("stranger-broken", "broken_net", code=code)
    install("stranger-one", "claimed_net")
    with pytest.raises(PluginError, match=r"stranger-broken:broken_net .* is broken") as raised:
        registry.load_plugin(registry.MODELS, "broken_net")
    assert reason in str(raised.value)
    reasons = reasons_by_name()
    assert reason in reasons["broken_net"]
    assert reasons["claimed_net"] == ""


def test_a_plugin_that_leaves_the_interpreter_disturbs_nobody(install):
    install("stranger-broken", "broken_net", code="import sys\nsys.exit(3)")
    reasons = reasons_by_name()
    assert "SystemExit" in reasons["broken_net"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os\nos._exit(0)", "it ended the process with status 0"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "it ended the process by SIGKILL"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class Wrong(BaseException): pass\nraise Wrong('no')", "Wrong: no"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("import os\nos.closerange(1, 1000)", "it ended the process with status"),
        ("import os\nif os.fork(): os._exit(4)\nimport time\ntime.sleep(600)", "it ended the process with status 4"),
    ],
    ids=["_exit", "killed", "interrupt", "base exception", "generator exit", "pipe closed", "a child that stays"],
)
def test_no_plugin_stops_the_listing(code, reason, install):
    install("a-stranger", "a_net", code=code)
    install("stranger-broken", "broken_net", code="1 / 0")
    install("stranger-one", "z_net")
    reasons = reasons_by_name()
    assert reason in reasons.pop("a_net")
    assert "ZeroDivisionError" in reasons.pop("broken_net")
    assert set(reasons.values()) == {""}
    assert {"z_net", "shallow_cnn"} <= reasons.keys()


@pytest.mark.slow
def test_a_plugin_that_never_ends_is_given_up(install):
    install("a-stranger", "a_net", code="import time\ntime.sleep(600)")
    install("stranger-one", "z_net")
    reasons = reasons_by_name(seconds=15)
    assert "it was not done within 15 seconds" in reasons["a_net"]
    assert reasons["z_net"] == ""


def test_what_a_plugin_writes_is_no_result(install):
    install(
        "a-stranger", "a_net", code=PLUGIN + "import os\nprint('hello')\nos.write(1, b'{}\\n')\nos.system('echo x')"
    )
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(models, ["--json"]).stdout)}
    assert rows["a_net"]["image_size"] == [24, 24]
    assert rows["a_net"]["broken"] == ""


def test_a_plugin_that_raises_an_interrupt_is_broken_and_a_real_one_stops(install):
    install("stranger-one", "a_net", code="raise KeyboardInterrupt")
    with pytest.raises(PluginError, match=r"a_net 1\.0 is broken: .* failed with KeyboardInterrupt"):
        registry.load_plugin(registry.MODELS, "a_net")
    code = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)"
    install("stranger-two", "b_net", code=code)
    with pytest.raises(KeyboardInterrupt):
        registry.load_plugin(registry.MODELS, "b_net")


def test_ctrl_c_stops_the_listing(install, tmp_path):
    install("a-stranger", "a_net", code="print('begun', flush=True)\nimport time\ntime.sleep(600)")
    program = "from chestxray.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site-packages"), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", program, "models"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stderr.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "Stopped by Ctrl-C.")


def test_names_are_shown_as_they_are(install):
    install("a-stranger", "a[bold]net", code="raise ValueError('[red]no[/red] \\x1b[2J')")
    install("b-stranger", "b[/net]", version="1.0")
    out = CliRunner().invoke(models, []).output
    for words in ("a[bold]net", "b[/net]", "[red]no[/red] \\x1b[2J"):
        assert words in out
    assert "\x1b" not in out


def test_models_lists_a_broken_plugin_beside_the_others(install):
    install("stranger-broken", "broken_net", code="import nowhere_to_be_found")
    install("stranger-one", "claimed_net")
    shown = CliRunner().invoke(models, [])
    assert shown.exit_code == 0
    assert "claimed_net" in shown.output
    row = next(line for line in shown.output.splitlines() if "broken_net" in line)
    assert "broken" in row and "stranger-broken 1.0" in row
    assert "No module named 'nowhere_to_be_found'" in shown.output
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(models, ["--json"]).output)}
    assert "nowhere_to_be_found" in rows["broken_net"]["broken"]
    assert rows["claimed_net"]["broken"] == ""


def test_a_plugin_that_is_turned_off_is_not_installed(install, monkeypatch):
    install("stranger-broken", "broken_net", code="1 / 0")
    install("stranger-one", "claimed_net")
    monkeypatch.setenv(registry.DISABLED, "broken_net")
    assert "broken_net" not in {entry.name for entry in registry.entries(registry.MODELS)}
    with pytest.raises(PluginError, match="Unknown model 'broken_net'"):
        registry.find(registry.MODELS, "broken_net")
    assert registry.load_plugin(registry.MODELS, "claimed_net")
