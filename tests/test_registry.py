import ast
import subprocess
import sys

import pytest

from chestxray import plugin as plugin_module
from chestxray import registry
from chestxray.cli import plugin_listing
from chestxray.errors import PluginError


def test_the_built_in_sources_are_plugins_like_any_other():
    names = {entry.name for entry in registry.entries(registry.SOURCES)}
    assert {"phantom", "folder"} <= names
    listed = {listed.entry.name: listed.reason for listed in plugin_listing.survey(registry.SOURCES)}
    assert listed == dict.fromkeys(names, "")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(PluginError, match=r"Unknown model 'shalow_cnn'. Did you mean shallow_cnn"):
        registry.find(registry.MODELS, "shalow_cnn")


def test_names_can_be_turned_off(monkeypatch):
    monkeypatch.setenv(registry.DISABLED, "shallow_cnn, deep_fc")
    names = {entry.name for entry in registry.entries(registry.MODELS)}
    assert not names & {"shallow_cnn", "deep_fc"}
    assert "deep_cnn" in names


def test_a_deferred_import_happens_at_the_first_use(tmp_path, monkeypatch):
    (tmp_path / "heavy_thing.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    with registry._deferred("heavy_thing"):
        import heavy_thing  # the stand-in
    assert "heavy_thing" not in sys.modules
    assert heavy_thing.VALUE == 7
    assert sys.modules["heavy_thing"].VALUE == 7


def test_authors_of_plugins_import_one_module_which_is_light():
    code = (
        "import sys, chestxray.plugin as plugin; heavy = {'pandas', 'h5py', 'keras'} & set(sys.modules);"
        "print(heavy or [getattr(plugin, name).__name__ for name in plugin.__all__])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == sorted(plugin_module.__all__)
    with pytest.raises(AttributeError, match="absent"):
        _ = plugin_module.absent
