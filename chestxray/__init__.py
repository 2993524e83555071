"""chestxray: train, compare, explain and serve chest radiograph classifiers. Research use only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from chestxray._version import VERSION as __version__

__all__ = ["DataSet", "Recipe", "Run", "__version__", "compare", "evaluate", "load", "load_data", "run"]

# From 1.29 on, ONNX Runtime's wheels write an identifier of the machine into the user's cache and send events to
# Microsoft, unless this is set before it is imported. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    # For editors and type checkers only; at run time `__getattr__` imports the same names from `_MODULES`.
    from chestxray.api.comparing import compare
    from chestxray.api.datasets import DataSet, load_data
    from chestxray.api.runs import Run, load, run
    from chestxray.evaluation.arrays import evaluate
    from chestxray.recipe import Recipe

_MODULES = {
    "DataSet": "chestxray.api.datasets",
    "Recipe": "chestxray.recipe",
    "Run": "chestxray.api.runs",
    "compare": "chestxray.api.comparing",
    "evaluate": "chestxray.evaluation.arrays",
    "load": "chestxray.api.runs",
    "load_data": "chestxray.api.datasets",
    "run": "chestxray.api.runs",
}


if not TYPE_CHECKING:  # which would take any name for one of ours

    def __getattr__(name: str) -> Any:
        # Lazy: `import chestxray` must not wait for pandas and TensorFlow.
        if name not in _MODULES:
            raise AttributeError(f"module 'chestxray' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
