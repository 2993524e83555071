"""The conformance suites pass what is right and fail what is broken, on the check meant for it."""

import importlib
import json
import re
import sys
from pathlib import Path

import keras
import pytest

import broken_plugins
from broken_plugins import BROKEN, GOOD
from chestxray import testing
from chestxray.errors import InputError
from chestxray.testing import check_model_plugin, results_table, run_checks
from chestxray.testing.fresh_process import FreshProcess
from chestxray.testing.model_suite import MODEL_CHECKS
from chestxray.testing.results import Check, CheckFailed, CheckResult, CheckSkipped, run_all

NAMES = [check.name for check in MODEL_CHECKS]
#: Of a broken plugin all is tried but the two dear checks, unless it is meant for one of them.
DEAR = ("replicas", "findings")
CHEAP = [name for name in NAMES if name not in DEAR]


#: Modules that should not be imported: what they hold, and what must be said of it.
BAD_IMPORTS = {
    "network": (
        "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9))\nexcept OSError:\n    pass",
        "touches the network .*127.0.0.1",
    ),
    "slow": ("import time\ntime.sleep(1.5)", r"takes \d+\.\d s beyond chestxray.plugin"),
    "heavy": ("import sklearn", "imports sklearn"),
    "alone": ("import nowhere_to_be_found", "nowhere_to_be_found"),
}


#: A module as it should be: those of the plugins here derive classes from keras's.
LIGHT = "imports_keras_and_its_parts"


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """One fresh process for all suites, since TensorFlow takes long to start; it finds `BAD_IMPORTS`."""
    folder = tmp_path_factory.mktemp("modules")
    for name, (source, _) in BAD_IMPORTS.items():
        (folder / f"bad_{name}.py").write_text(source)
    (folder / f"{LIGHT}.py").write_text("import keras\nfrom keras import layers, ops\n")
    with pytest.MonkeyPatch.context() as patch, FreshProcess(("keras", "chestxray.plugin")) as shared:
        patch.syspath_prepend(folder)
        shared.start()
        yield shared


def outcomes(results, outcome):
    return [result.name for result in results if result.outcome == outcome]


def test_a_good_plugin_passes_every_check(process):
    results = run_checks(GOOD, module=LIGHT, process=process)
    assert outcomes(results, "passed") == [name for name in NAMES if name != "weights"], results_table.plain(results)
    assert outcomes(results, "skipped") == ["weights"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_fails_the_check_meant_for_it(name, process):
    plugin, check = BROKEN[name]
    results = run_checks(plugin, module=LIGHT, process=process, only=NAMES if check in DEAR else CHEAP)
    assert outcomes(results, "failed") == [check], results_table.plain(results)
    (failed,) = [result for result in results if result.name == check]
    assert failed.reason


def test_every_check_fails_for_some_broken_plugin():
    # A process of its own and a layer that is patched, each in a test below, stand for these two.
    assert {check for _, check in BROKEN.values()} | {"import", "one_pass"} == set(NAMES)


def test_a_head_that_computes_something_else_than_its_layers_say_fails_one_pass(process):
    def head(features, classes):
        dense = keras.layers.Dense(classes, dtype="float32", name="logits")
        plain = dense.call
        dense.call = lambda inputs, training=None: 3 * plain(inputs)
        return dense(keras.layers.GlobalAveragePooling2D(name="pool")(features))

    plugin = broken_plugins.replace(GOOD, head=head)
    results = run_checks(plugin, process=process, only=["cam_layer", "gradcam", "one_pass"])
    assert outcomes(results, "failed") == ["one_pass"], results_table.plain(results)
    assert "differ from tf-keras-vis's by" in results[-1].reason


@pytest.mark.parametrize("name", BAD_IMPORTS)
def test_a_bad_import_fails_the_import_check_alone(name, process):
    results = run_checks(GOOD, module=f"bad_{name}", only=["import"], process=process)
    assert outcomes(results, "failed") == ["import"], results_table.plain(results)
    (failed,) = [result for result in results if result.name == "import"]
    assert re.search(BAD_IMPORTS[name][1], failed.reason)


def test_an_import_that_cannot_be_tried_is_skipped_and_says_so(process):
    for module in ("__main__", "no_module_of_this_name"):
        (result,) = run_checks(GOOD, module=module, only=["import"], process=process)
        assert result.outcome == "skipped" and not result.passed
        assert "by name" in result.skipped_reason


def test_no_cam_layer_is_skipped_with_the_reason(process):
    plugin = broken_plugins.replace(GOOD, cam_layer=None, cam_reason="nothing to see")
    results = run_checks(plugin, process=process, only=["metadata", "cam_layer", "gradcam"])
    assert outcomes(results, "skipped") == ["cam_layer", "gradcam"]
    assert "nothing to see" in results[1].skipped_reason


def test_a_fixed_size_plugin_is_tried_at_its_own_size_alone(process):
    plugin = broken_plugins.replace(GOOD, fixed_size=True, build=broken_plugins.build_for_even_sizes)
    assert not results_table.failed(run_checks(plugin, process=process, only=["scale", "features", "head", "sizes"]))


def test_a_failing_plugin_raises_with_the_table():
    with pytest.raises(AssertionError, match=r"1 failed.*\n[\s\S]*reference is empty"):
        check_model_plugin(broken_plugins.replace(GOOD, reference=""), only=["metadata"])


def test_a_passing_plugin_gives_its_results():
    results = check_model_plugin(GOOD, only=["metadata", "scale"])
    assert [result.name for result in results] == ["metadata", "scale"]


def test_an_unknown_check_is_refused():
    with pytest.raises(InputError, match="Did you mean gradcam"):
        run_checks(GOOD, only=["gradcan"])


def check_one(subject):
    """Ask one."""
    raise CheckFailed("one [is] wrong", "mend it")


def check_two(subject):
    """Ask two."""
    raise AssertionError("never run")


def check_three(subject):
    """Ask three."""
    raise CheckSkipped("nothing to try")


def check_four(subject):
    """Ask four."""
    raise KeyError("what the plugin raised")


def test_what_needs_a_failed_check_is_skipped_and_an_exception_is_a_result():
    checks = [Check(check_one), Check(check_two, needs=("one",)), Check(check_three), Check(check_four)]
    begun = []
    results = run_all(checks, None, begun.append)
    assert [result.outcome for result in results] == ["failed", "skipped", "skipped", "failed"]
    assert begun == ["one", "two", "three", "four"]
    assert "KeyError" in results[3].reason
    assert "test_testing.py" in results[3].hint
    assert checks[0].asks == "Ask one."


def test_a_skip_is_shown_and_is_no_pass():
    results = [CheckResult("a", True, 0.1), CheckResult("b", False, 0.0, skipped_reason="[why]")]
    assert results_table.summary(results) == "1 passed, 1 skipped"
    assert "[why]" in results_table.plain(results)
    assert json.loads(json.dumps(results_table.to_json(results))) == {
        "passed": True,
        "checks": [
            {"name": "a", "outcome": "passed", "seconds": 0.1, "reason": "", "hint": ""},
            {"name": "b", "outcome": "skipped", "seconds": 0.0, "reason": "[why]", "hint": ""},
        ],
    }


def test_a_process_that_dies_or_hangs_fails_the_check_and_the_next_one_starts_anew(tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text("import os\nos._exit(3)")
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with FreshProcess() as own:
        with pytest.raises(CheckFailed, match="exit code 3"):
            own.ask("importing", module="deadly")
        own.ask("ready")
        with pytest.raises(CheckFailed, match="longer than 1 s"):
            own.ask("importing", module="endless", seconds=1)
        assert own.ask("importing", module="json")["error"] == ""


def test_the_suites_are_found_without_waiting_for_keras():
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = testing.nothing_of_the_kind
    with FreshProcess() as own:
        assert own.ask("importing", module="chestxray.testing")["seconds"] < 1
    assert "keras" in sys.modules


def test_the_page_for_authors_lists_every_check():
    page = (Path(__file__).parents[2] / "docs" / "write-a-plugin.md").read_text()
    of_models = page.partition("\n## 4.")[0]
    assert re.findall(r"^\| `(\w+)` \|", of_models, re.MULTILINE) == NAMES


def plugins_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "write-a-plugin.md").read_text()
    return [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "plugin = ModelPlugin" in code]


@pytest.mark.parametrize("code", plugins_on_the_page(), ids=["network", "inlined"])
def test_the_modules_on_the_page_for_authors_pass(code, process, tmp_path, monkeypatch):
    (tmp_path / "on_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "on_the_page", raising=False)
    plugin = importlib.import_module("on_the_page").plugin
    results = run_checks(plugin, only=NAMES if "inline" in code else CHEAP, process=process)
    assert {result.outcome for result in results} <= {"passed", "skipped"}, results_table.plain(results)
    # The process, which runs already, may not search the folder of the module; and not every page offers weights.
    assert {result.name for result in results if result.outcome == "skipped"} <= {"import", "weights"}
