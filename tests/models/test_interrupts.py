"""Ctrl-C waits for a place where it can be taken."""

import os
import signal
import threading

import keras
import numpy as np
import pytest

from chestxray.models import forward, interrupts


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C as a terminal gives it: who runs the tests in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_it_waits_for_the_check():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.deferred() as check:
        press()
        done.append("the work goes on")
        check()
        done.append("never")
    assert done == ["the work goes on"]


def test_it_waits_no_longer_than_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts.deferred():
            press()
            done.append("to its end")
        done.append("never")
    assert done == ["to its end"]


def test_the_second_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        press()
        press()
        done.append("never")
    assert done == []


def test_what_the_block_raises_is_what_is_raised():
    with pytest.raises(ValueError, match="of the block"), interrupts.deferred():
        press()
        raise ValueError("of the block")


def test_afterwards_all_is_as_before():
    with interrupts.deferred():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_handler_of_the_program_is_left_alone():
    heard = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    with interrupts.deferred() as check:
        press()
        check()
    assert heard == [signal.SIGINT]


def test_other_threads_change_nothing():
    during = []

    def work():
        with interrupts.deferred() as check:
            during.append(signal.getsignal(signal.SIGINT))
            check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [signal.default_int_handler]


def test_a_prediction_ends_between_two_batches():
    """Pressed while TensorFlow computes a batch, it ends before the next one and not after the last."""
    computed = []

    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))

    class Counted(forward.Forward):
        def __call__(self, images):
            computed.append(len(computed))
            if len(computed) == 2:
                press()
            return super().__call__(images)

    pixels = np.zeros((40, 8, 8), np.uint8)
    with pytest.raises(KeyboardInterrupt):
        list(forward.outputs(Counted(model), pixels, np.arange(40), batch_size=4))
    assert len(computed) == 2
