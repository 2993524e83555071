"""The examples in docstrings and in docs/python.md do what they say."""

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


def test_the_page_of_the_python_api():
    page = Path(__file__).parents[1] / "docs" / "python.md"
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(page), module_relative=False, optionflags=options, encoding="utf-8")
    assert found.attempted > 5
    assert not found.failed


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
