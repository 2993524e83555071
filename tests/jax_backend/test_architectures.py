"""Every architecture takes a training step to the same loss under TensorFlow and under JAX."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chestxray import registry

#: The code of a smaller one, with more channels or blocks.
LARGER = {
    "densenet169", "densenet201", "dinov2_xray", "efficientnetv2m", "eva_x_base", "eva_x_small", "raddino", "resnet101",
    "vit_base", "vit_small",
}  # fmt: skip
NAMES = sorted({entry.name for entry in registry.entries(registry.MODELS)} - LARGER)


@pytest.fixture(scope="module")
def steps():
    """The losses of `one_step.py` by backend and architecture; both backends compute at the same time."""
    # XLA compiles without optimising: a step is taken twice, and the seconds that it takes are those of compiling.
    settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    started = {
        backend: subprocess.Popen(
            [sys.executable, Path(__file__).with_name("one_step.py"), *NAMES],
            env={**os.environ, **settings, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            text=True,
        )
        for backend in ("tensorflow", "jax")
    }
    made = {}
    for backend, process in started.items():
        printed, _ = process.communicate(timeout=1500)
        assert process.returncode == 0
        made[backend] = {found["name"]: found for found in map(json.loads, printed.splitlines())}
    return made


@pytest.mark.parametrize("name", NAMES)
def test_a_step_leads_to_the_same_loss(steps, name):
    here, there = (steps[backend][name]["losses"] for backend in ("tensorflow", "jax"))
    assert np.isfinite(here).all()
    assert here[0] != here[1]
    np.testing.assert_allclose(here[0], there[0], rtol=1e-4)
    # What the step changed: batch normalisation over four small images makes much of the rounding before it.
    np.testing.assert_allclose(np.diff(here), np.diff(there), rtol=0.3)
