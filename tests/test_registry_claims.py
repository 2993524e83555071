"""Distributions as an installer lays them down: two that claim one name, a broken one, one turned off."""

import importlib
import json
import sys

import pytest
from click.testing import CliRunner

from chestxray import registry
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


def test_a_strangers_distribution_is_found_once_it_is_installed(install):
    assert "claimed_net" not in {entry.name for entry in registry.entries(registry.MODELS)}
    install("stranger-one", "claimed_net", version="2.5")
    entry = registry.find(registry.MODELS, "claimed_net")
    assert (entry.distribution, entry.version) == ("stranger-one", "2.5")
    assert registry.load(registry.MODELS, "claimed_net").reference == "stranger-one"


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
    plugin = registry.load(registry.MODELS, f"{distribution}:claimed_net")
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
        registry.load(registry.MODELS, "broken_net")
    assert reason in str(raised.value)
    reasons = {entry.name: reason for entry, _, reason in registry.survey(registry.MODELS)}
    assert reason in reasons["broken_net"]
    assert reasons["claimed_net"] == ""


def test_a_plugin_that_leaves_the_interpreter_disturbs_nobody(install):
    install("stranger-broken", "broken_net", code="import sys\nsys.exit(3)")
    reasons = {entry.name: reason for entry, _, reason in registry.survey(registry.MODELS)}
    assert "SystemExit" in reasons["broken_net"]


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
    assert registry.load(registry.MODELS, "claimed_net")
