"""chestxray: train, compare, explain and serve chest radiograph classifiers. Research use only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chestxray._version import VERSION as __version__

__all__ = ["Recipe", "Run", "__version__", "compare", "evaluate", "load", "run"]

if TYPE_CHECKING:
    from chestxray.evaluation.arrays import compare, evaluate
    from chestxray.recipe import Recipe
    from chestxray.runs.run_folder import Run, load
    from chestxray.workflow import run

_EXPORTS = {
    "compare": ("chestxray.evaluation.arrays", "compare"),
    "evaluate": ("chestxray.evaluation.arrays", "evaluate"),
    "Recipe": ("chestxray.recipe", "Recipe"),
    "Run": ("chestxray.runs.run_folder", "Run"),
    "load": ("chestxray.runs.run_folder", "load"),
    "run": ("chestxray.workflow", "run"),
}


def __getattr__(name: str) -> Any:
    # Lazy: `import chestxray` must not wait for pandas and TensorFlow.
    if name not in _EXPORTS:
        raise AttributeError(f"module 'chestxray' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _EXPORTS[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
