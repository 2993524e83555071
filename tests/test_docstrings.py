"""The examples in docstrings and in the pages of the Python API do what they say."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import chestxray

MODULES = [
    module.name
    for module in pkgutil.walk_packages(chestxray.__path__, "chestxray.")
    if ">>> " in Path(importlib.util.find_spec(module.name).origin).read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", ["python.md", "pytorch.md"])
def test_pages_of_the_python_api(name):
    page = Path(__file__).parents[1] / "docs" / name
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(page), module_relative=False, optionflags=options, encoding="utf-8")
    assert found.attempted > 5
    assert not found.failed


def test_what_the_page_of_the_python_api_names_is_there():
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    named = {kind: set(re.findall(rf"\b{kind}\.([a-z_]+)", page)) for kind in ("cx", "run")}
    assert named["cx"] >= {"load_data", "run", "load", "evaluate", "compare"}
    assert named["run"] >= {"history", "predict", "explain", "plot_roc", "plot_history", "model"}
    assert [name for name in named["cx"] if not hasattr(chestxray, name)] == []
    assert [name for name in named["run"] if not hasattr(chestxray.Run, name)] == []


def test_what_pages_import_is_there():
    root = Path(__file__).parents[1]
    pages = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]
    imports = [
        (page.name, module, name.strip())
        for page in pages
        for module, names in re.findall(
            r"^from (chestxray[\w.]*) import ([\w, ]+)$", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        for name in names.split(",")
    ]
    own = [(page, module, name) for page, module, name in imports if module.split(".")[0] == "chestxray"]
    assert len(own) > 3
    absent = [
        one
        for one in own
        if not hasattr(importlib.import_module(one[1]), one[2]) and not _is_module(f"{one[1]}.{one[2]}")
    ]
    assert absent == []


def _is_module(name):
    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert not doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed
