"""Every architecture of ours passes the suite that we ask of strangers."""

import ast
from pathlib import Path

import pytest

from chestxray import registry
from chestxray.testing import check_model_plugin

OURS = [entry.name for entry in registry.entries(registry.MODELS) if entry.distribution.startswith("chestxray-")]

#: The code of a smaller one, with more channels or blocks; their own tests build them.
LARGER = {
    "densenet169", "densenet201", "dinov2_xray", "efficientnetv2m", "eva_x_base", "eva_x_small", "raddino", "resnet101",
    "vit_base", "vit_small",
}  # fmt: skip
FOLDER = Path(__file__).parents[2] / "plugins"


def test_the_folder_of_plugins_holds_distributions_alone():
    """`pip install ./plugins/*`, as the README has it, would trip over anything else."""
    stray = [item.name for item in FOLDER.iterdir() if not (item / "pyproject.toml").is_file()]
    assert stray == []


def test_they_need_no_more_of_us_than_strangers():
    """What stands behind `chestxray.plugin` may move, and no plugin notices."""
    files = sorted(FOLDER.glob("*/*.py"))
    assert len(files) >= 10
    imported = {
        node.module
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "chestxray"
    }
    assert imported == {"chestxray.plugin"}


def test_all_are_installed():
    assert len(OURS) == 33


@pytest.mark.parametrize("name", sorted(set(OURS) - LARGER))
def test_it_passes_the_conformance_suite(name):
    check_model_plugin(registry.load_plugin(registry.MODELS, name))
