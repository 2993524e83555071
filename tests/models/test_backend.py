"""The backend that Keras computes with, and what is said where it cannot be had."""

import sys

import pytest

from chestxray.errors import InputError
from chestxray.models import backend, startup


@pytest.fixture
def before_keras(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv(backend.VARIABLE, raising=False)


def test_tensorflow_unless_somebody_chooses(before_keras, monkeypatch):
    assert backend.chosen() == "tensorflow"
    monkeypatch.setenv(backend.VARIABLE, "jax")
    assert backend.on_jax()


def test_an_option_comes_before_the_variable(before_keras, monkeypatch):
    monkeypatch.setenv(backend.VARIABLE, "tensorflow")
    backend.use("jax")
    assert backend.on_jax()


def test_other_backends_are_a_line(before_keras, monkeypatch):
    with pytest.raises(InputError, match=r"must be tensorflow or jax\. Received: 'torch'"):
        backend.use("torch")
    monkeypatch.setenv(backend.VARIABLE, "openvino")
    with pytest.raises(InputError, match="Received: 'openvino'"):
        backend.use(None)


def test_keras_keeps_the_backend_that_it_was_imported_with():
    import keras

    assert keras.config.backend() == "tensorflow"
    with pytest.raises(InputError, match="TensorFlow in this process already"):
        backend.use("jax")


def test_what_computes_with_tensorflow_alone_says_so(before_keras, monkeypatch):
    monkeypatch.setenv(backend.VARIABLE, "jax")
    with pytest.raises(InputError, match="Unset KERAS_BACKEND"):
        startup.require_tensorflow("A Keras model")
