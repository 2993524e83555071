"""Packages that an extra of chestxray installs, and that are missing."""

import importlib.util
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from chestxray.cli import main
from chestxray.errors import EXTRAS, MissingPackageError, missing_package, require


@pytest.fixture
def without(monkeypatch):
    """A function that has a module seem not to be installed."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


def test_require_names_what_is_missing_and_how_to_install_it(without):
    require("Training", "click", "keras", "tensorflow")
    without("tensorflow")
    with pytest.raises(MissingPackageError, match=r"^Training needs tensorflow: pip install 'chestxray\[train\]'$"):
        require("Training", "tensorflow", "keras")


def test_only_an_import_that_failed_for_want_of_an_extra_is_explained(without):
    of_flask = ModuleNotFoundError("No module named 'flask.app'", name="flask.app")
    assert missing_package(of_flask, "serve") is None, "flask is installed: a defect, and not the user's"
    without("flask")
    assert str(missing_package(of_flask, "serve")) == "serve needs flask: pip install 'chestxray[serve]'"
    assert (
        missing_package(ModuleNotFoundError("No module named 'chestxray.gone'", name="chestxray.gone"), "run") is None
    )
    assert missing_package(ModuleNotFoundError("of no name"), "run") is None


@pytest.mark.parametrize(("name", "expected"), [("flask", MissingPackageError), ("gone", ModuleNotFoundError)])
def test_a_command_explains_it_and_lets_a_defect_of_ours_through(without, monkeypatch, name, expected):
    @click.command()
    def command():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    without("flask")
    monkeypatch.setattr(main.Lazy, "get_command", lambda *_: command)
    result = CliRunner().invoke(main.group, ["serve"])
    assert type(result.exception) is expected
    if expected is MissingPackageError:
        assert str(result.exception) == "`chestxray serve` needs flask: pip install 'chestxray[serve]'"


def test_every_extra_asks_for_the_packages_that_it_is_named_for():
    path = Path(__file__).parents[1] / "pyproject.toml"
    extras = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    packages = packages_distributions()
    for extra, modules in EXTRAS.items():
        asked = {normal(requirement) for requirement in extras[extra]}
        for module in modules:
            if module not in packages:
                # Some extras have an environment of their own, such as those of trackers.
                assert importlib.util.find_spec(module) is None, (extra, module)
                continue
            assert asked & {normal(name) for name in packages[module]}, (extra, module)


def normal(requirement):
    """The name of the distribution that is asked for, as indexes compare names."""
    name = requirement
    for sign in "<>=!~[;, ":
        name = name.partition(sign)[0]
    return name.lower().replace("_", "-").replace(".", "-")
