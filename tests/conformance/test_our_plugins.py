"""Every architecture of ours passes the suite that we ask of strangers."""

from pathlib import Path

import pytest

from chestxray import registry
from chestxray.testing import check_model_plugin

OURS = [entry.name for entry in registry.entries(registry.MODELS) if entry.distribution.startswith("chestxray-")]


def test_the_folder_of_plugins_holds_distributions_alone():
    """`pip install ./plugins/*`, as the README has it, would trip over anything else."""
    folder = Path(__file__).parents[2] / "plugins"
    stray = [item.name for item in folder.iterdir() if not (item / "pyproject.toml").is_file()]
    assert stray == []


def test_all_are_installed():
    assert len(OURS) == 17


@pytest.mark.parametrize("name", OURS)
def test_it_passes_the_conformance_suite(name):
    check_model_plugin(registry.load(registry.MODELS, name))
