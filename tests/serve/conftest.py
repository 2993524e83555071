"""Applications around the engines of `fakes`."""

import time

import pytest

from chestxray.serve.app import create_app
from chestxray.serve.decoding import Decoders
from chestxray.serve.settings import Settings
from serve.fakes import image_bytes, served


@pytest.fixture(scope="session")
def decoders():
    """Decoding processes that all tests share: they need half a second to start."""
    shared = Decoders(Settings(threads=2))
    shared.start()
    for _ in range(2):
        shared.decode(image_bytes(), [((8, 8), "stretch")], (), 10_000, time.monotonic() + 300)
    yield shared
    shared.close()


@pytest.fixture
def make_client(decoders):
    """A function that makes a test client of an application; its work is ended after the test."""
    apps = []

    def make(*engines, models=None, links=None, **settings):
        app = create_app(models or served(*engines), Settings(**{"threads": 2, **settings}), links, decoders)
        apps.append(app)
        return app.test_client()

    yield make
    for app in apps:
        app.extensions["chestxray"].gate.close()


@pytest.fixture
def client(make_client):
    return make_client()
