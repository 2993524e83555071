import ast
import os
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
    with registry.deferred("heavy_thing"):
        import heavy_thing  # the stand-in
    assert "heavy_thing" not in sys.modules
    assert heavy_thing.VALUE == 7
    assert sys.modules["heavy_thing"].VALUE == 7


def test_the_parts_of_keras_are_deferred_too(tmp_path):
    """In a process of its own and with a small package in keras's place, since keras is imported here."""
    (tmp_path / "keras" / "layers").mkdir(parents=True)
    (tmp_path / "keras" / "__init__.py").write_text("from keras import layers\n")
    (tmp_path / "keras" / "layers" / "__init__.py").write_text("def Dense():\n    return 'dense'\n")
    (tmp_path / "light.py").write_text("from keras import layers\ndef build():\n    return layers.Dense()\n")
    (tmp_path / "eager.py").write_text("from keras.layers import Dense\n")
    code = (
        "import sys\nfrom chestxray import registry\nwith registry.deferred('keras'):\n    import light\n"
        "assert 'keras' not in sys.modules\nassert light.build() == 'dense'\n"
        "for name in [name for name in sys.modules if name.startswith('keras')]:\n    del sys.modules[name]\n"
        "with registry.deferred('keras'):\n    import eager\n"
        "assert eager.Dense() == light.build() and sys.modules['keras'].layers.Dense() == 'dense'"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": path})


def test_authors_of_plugins_import_one_module_which_is_light():
    code = (
        "import sys, chestxray.plugin as plugin; heavy = {'pandas', 'h5py', 'keras'} & set(sys.modules);"
        "print(heavy or [getattr(plugin, name).__name__ for name in plugin.__all__])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == sorted(plugin_module.__all__)
    with pytest.raises(AttributeError, match="absent"):
        _ = plugin_module.absent
