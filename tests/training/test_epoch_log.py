import logging

import pytest

from chestxray.training import epoch_log
from chestxray.training.epoch_log import EpochLog

LOGS = {"loss": 0.5, "accuracy": 0.75, "val_loss": 0.25, "val_accuracy": 0.875}


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(epoch_log, "time", made)
    return made


def trained(clock, *, first=0, epochs=3, steps=11, compiling=20.0, step=1.0, validation=2.0):
    told = EpochLog(steps=steps, validation_steps=6, batch=16, epochs=epochs)
    told.on_train_begin()
    for epoch in range(first, epochs):
        told.on_epoch_begin(epoch)
        for batch in range(steps):
            clock.now += step + (compiling if epoch == first and batch == 0 else 0)
            told.on_train_batch_end(batch)
        clock.now += validation
        told.on_epoch_end(epoch, LOGS)


def test_the_estimate_comes_from_the_first_steps_and_then_from_an_epoch(clock, caplog):
    with caplog.at_level(logging.INFO, "chestxray"):
        trained(clock)
    lines = [record.message for record in caplog.records]
    # Three epochs of 11 steps and 6 steps of validation at a third, less the three that were measured.
    assert lines[:2] == [
        "Compiling the training step ...",
        "Compiled in 21 s. At 16 images/s the training will take about 36 s more.",
    ]
    assert lines[2] == (
        "Epoch 1 of 3 (33 s): loss 0.5000, accuracy 0.750; validation loss 0.2500, accuracy 0.875; about 24 s more."
    )
    assert lines[-1].startswith("Epoch 3 of 3 (13 s)")
    assert "more" not in lines[-1]


def test_a_resumed_training_counts_what_is_left(clock, caplog):
    with caplog.at_level(logging.INFO, "chestxray"):
        trained(clock, first=2)
    assert "about 10 s more" in caplog.messages[1]


def test_a_long_epoch_shows_where_it_is(clock, caplog):
    with caplog.at_level(logging.INFO, "chestxray"):
        trained(clock, epochs=1, steps=100)
    assert [line for line in caplog.messages if ": step" in line] == [
        "Epoch 1 of 1: step 34 of 100.",
        "Epoch 1 of 1: step 64 of 100.",
        "Epoch 1 of 1: step 94 of 100.",
    ]


def test_a_single_step_says_nothing_that_was_not_measured(clock, caplog):
    with caplog.at_level(logging.INFO, "chestxray"):
        trained(clock, steps=1, epochs=1)
    assert not any("images/s" in line for line in caplog.messages)


def test_epochs_of_a_single_step_are_estimated_as_wholes(clock, caplog):
    with caplog.at_level(logging.INFO, "chestxray"):
        trained(clock, steps=1, epochs=3)
    assert not any("images/s" in line for line in caplog.messages)
    assert caplog.messages[2].endswith("about 3 s more.")
    assert len(caplog.messages) == 4
