"""The suites of metrics and other methods pass what is right and fail what is broken, on the check meant for it."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import method_plugins
from broken_methods import BROKEN, GOOD, METRIC
from chestxray.cli.plugin import command
from chestxray.errors import InputError
from chestxray.testing import check_method_plugin, run_method_checks
from chestxray.testing.method_suite import suite_of


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_passes(name):
    outcomes = {result.name: result.outcome for result in check_method_plugin(GOOD[name])}
    assert outcomes.pop("name") == "skipped"
    assert outcomes.pop("mirror", "passed") == ("skipped" if getattr(GOOD[name], "mirrors", False) else "passed")
    assert outcomes.pop("import") in ("passed", "skipped")
    assert set(outcomes.values()) == {"passed"}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_fails_on_the_check_meant_for_it(name):
    plugin, check = BROKEN[name]
    # The import is timed in a process of its own; GOOD has that.
    checks = [one.name for one in suite_of(plugin)[0] if one.name != "import"]
    results = run_method_checks(plugin, only=checks)
    assert [result.name for result in results if result.outcome == "failed"] == [check]


def test_a_name_of_our_own_fails():
    (result,) = run_method_checks(METRIC, name="auroc", only=["name"])
    assert result.outcome == "failed"
    with pytest.raises(InputError, match=r"ExplanationPlugin or SegmenterPlugin\. Received: str"):
        check_method_plugin("auroc")
    with pytest.raises(AssertionError, match="metadata"):
        check_method_plugin(BROKEN["no reference"][0], only=["metadata"])


def test_the_command_checks_and_lists_them(tmp_path, monkeypatch):
    method_plugins.install(tmp_path, monkeypatch)
    checked = CliRunner().invoke(command, ["check", "pairs", "--kind", "metric", "--json"], standalone_mode=False)
    found = json.loads(checked.stdout)
    assert checked.return_value == 0 and found["kind"] == "metric" and found["version"] == "2.1"
    listed = CliRunner().invoke(command, ["list", "--json"], standalone_mode=False)
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["pairs"]["kind"] == "metric" and rows["pairs"]["reference"] == "Mann and Whitney 1947"
    assert rows["phantom"]["kind"] == "data source"
    assert "method-plugins 2.1" in CliRunner().invoke(command, ["list"], standalone_mode=False).stdout


def _examples():
    """The modules that docs/write-a-plugin.md has of methods."""
    page = (Path(__file__).parents[2] / "docs" / "write-a-plugin.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page.partition("## 4. ")[2], re.DOTALL)
    return {re.search(r"import (\w+)Plugin", block).group(1): block for block in blocks}


@pytest.mark.parametrize("kind", ["Metric", "Loss", "Augmentation", "Explanation"])
def test_the_examples_of_the_page_pass(kind):
    made = {}
    exec(_examples()[kind], made)
    checks = [check.name for check in suite_of(made["plugin"])[0] if check.name != "import"]
    assert {one.outcome for one in check_method_plugin(made["plugin"], only=checks) if one.name != "name"} == {"passed"}
