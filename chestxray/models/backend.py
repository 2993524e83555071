"""The backend that Keras computes with: TensorFlow, or JAX where a training asks for it."""

from __future__ import annotations

import os
import sys
from typing import Literal

from chestxray.errors import InputError

#: What Keras reads when it is imported.
VARIABLE = "KERAS_BACKEND"
ALLOWED = ("tensorflow", "jax")
#: The names as their projects write them.
TITLES = {"tensorflow": "TensorFlow", "jax": "JAX"}


def chosen() -> Literal["tensorflow", "jax"]:
    """Return the backend of this process: Keras's own once it is imported, before that what ``KERAS_BACKEND`` says.

    Raises:
        InputError: neither TensorFlow nor JAX.
    """
    config = getattr(sys.modules.get("keras"), "config", None)
    name = config.backend() if config is not None else os.environ.get(VARIABLE) or ALLOWED[0]
    if name not in ALLOWED:
        raise InputError(f"The backend must be {' or '.join(ALLOWED)}. Received: {name!r}.")
    return "jax" if name == "jax" else "tensorflow"


def use(name: str | None) -> None:
    """Make `name` the backend of this process; None leaves it to ``KERAS_BACKEND``, or TensorFlow.

    Raises:
        InputError: an unknown backend, or Keras has been imported with another one.
    """
    if name is not None and name in ALLOWED and "keras" not in sys.modules:
        os.environ[VARIABLE] = name
    if name not in (None, *ALLOWED):
        raise InputError(f"The backend must be {' or '.join(ALLOWED)}. Received: {name!r}.")
    found = chosen()
    if name not in (None, found):
        raise InputError(f"Keras computes with {TITLES[found]} in this process already. Received: {name!r}.")
    # Also where nobody chose: a file in the user's home could make Keras choose another one.
    os.environ.setdefault(VARIABLE, found)


def on_jax() -> bool:
    """Return whether this process computes with JAX."""
    return chosen() == "jax"
