"""Applications around the engines of `fakes`."""

import contextlib
import os
import time

import pytest

from chestxray.serve.app import create_app
from chestxray.serve.decoding import Decoders
from chestxray.serve.settings import Settings
from serve.fakes import by_workers, image_bytes, listening, served

UNIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn needs fork")


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


@pytest.fixture(scope="module")
def two_workers():
    """The port of a server of two processes with the default settings, for the tests of a module."""
    with by_workers() as (_, port):
        yield port


@pytest.fixture(params=["alone", pytest.param("workers", marks=UNIX)])
def serving(request, decoders):
    """A context manager that takes settings and gives the port of a server: in this process, or of two processes."""
    if request.param == "alone":
        return lambda **settings: listening(decoders=decoders, **settings)

    @contextlib.contextmanager
    def several(**settings):
        if not settings:
            yield request.getfixturevalue("two_workers")
            return
        with by_workers(**settings) as (_, port):
            yield port

    return several
