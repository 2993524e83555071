"""`import chestxray`: at once, and with all that it offers."""

import subprocess
import sys

import pytest

import chestxray


def test_it_imports_nothing_heavy():
    code = (
        "import sys; before = set(sys.modules); import chestxray; dir(chestxray);"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['chestxray']"


def test_what_it_offers_is_there_and_nothing_else_is_shown():
    offered = [name for name in dir(chestxray) if not name.startswith("__")]
    assert offered == sorted(name for name in chestxray.__all__ if name != "__version__")
    for name in offered:
        assert getattr(chestxray, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = chestxray.lod
