"""Ctrl-C and SIGTERM wait for a place where they can be taken."""

import dataclasses
import os
import signal
import threading
import time

import keras
import numpy as np
import pytest

from chestxray.errors import Terminated
from chestxray.explanation.inference_graph import OnePass
from chestxray.models import assembly, forward, interrupts


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


def test_sigterm_is_taken_where_ctrl_c_is_and_told_from_it():
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with interrupts.sigterm_heard():
            done = []
            with pytest.raises(Terminated), interrupts.deferred() as check:
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("the work goes on")
                check()
            assert done == ["the work goes on"]
            with pytest.raises(Terminated):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_program_keeps_its_own_way_with_sigterm():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with interrupts.sigterm_heard(), interrupts.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_block_within_a_block_takes_its_signals():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        press()
        with interrupts.deferred() as check:
            done.append("the inner block has begun")
        done.append("and ended")
        with interrupts.deferred() as check:
            check()
        done.append("never")
    assert done == ["the inner block has begun", "and ended"]
    with interrupts.deferred() as check:
        check()


class Pressing(keras.layers.Layer):
    """Once ``armed``, presses Ctrl-C while a graph that it belongs to is built, and notes that it went on."""

    def __init__(self):
        super().__init__(name="pressing")
        self.armed, self.went_on = False, []

    def call(self, inputs):
        if self.armed:
            self.armed = False
            press()
            self.went_on.append(True)
        return inputs


def test_a_heat_map_ends_after_its_graph_was_built_not_within(tiny):
    """Within it TensorFlow was seen to make a TypeError of the signal."""
    layer = Pressing()
    given = tiny.build

    def build(scaled, weights):
        return layer(given(scaled, weights))

    model = assembly.build(dataclasses.replace(tiny, build=build), 2, (16, 16)).model
    layer.armed = True
    with pytest.raises(KeyboardInterrupt):
        OnePass(model, "last")(np.zeros((2, 16, 16, 1), np.float32))
    assert layer.went_on
