"""Every architecture of ours passes the suite that we ask of strangers."""

import pytest

from chestxray import registry
from chestxray.testing import check_model_plugin

OURS = [entry.name for entry in registry.entries(registry.MODELS) if entry.distribution.startswith("chestxray-")]


def test_all_are_installed():
    assert len(OURS) == 17


@pytest.mark.parametrize("name", OURS)
def test_it_passes_the_conformance_suite(name):
    check_model_plugin(registry.load(registry.MODELS, name))
