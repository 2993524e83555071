"""The examples in docstrings and in docs/python.md do what they say."""

import doctest
import importlib
import pkgutil
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


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert not doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed
