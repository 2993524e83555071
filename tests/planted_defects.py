"""Targets of the fuzzer that have a defect each, which one number in four brings out."""

import os
import time

import numpy as np

from chestxray.errors import DataError


def _target(defect):
    def prepare(folder, stack):
        def case(rng):
            if rng.random() < 0.25:
                defect()
            raise DataError("refused as it should be")

        return case

    return prepare


def _raise():
    raise ValueError("planted")


raises = _target(_raise)
stops = _target(lambda: os._exit(0))
hangs = _target(lambda: time.sleep(600))
takes_memory = _target(lambda: np.ones(20_000_000).sum())
is_slow = _target(lambda: sum(range(30_000_000)))
interrupts = _target(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
sound = _target(lambda: None)
