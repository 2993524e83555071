"""Networks that the tests of heat maps share: each is trained once."""

import pytest

import phantom_networks


@pytest.fixture(scope="session")
def marked():
    """A network trained on films whose consolidations have a letter, and 50 other such films."""
    return phantom_networks.trained(marker=True), phantom_networks.films(50, 1, marker=True)


@pytest.fixture(scope="session")
def unmarked():
    """A network trained on films without letters, and 80 other such films."""
    return phantom_networks.trained(marker=False), phantom_networks.films(80, 1, marker=False)
