"""chestxray: train, compare, explain and serve chest radiograph classifiers. Research use only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chestxray._version import VERSION as __version__

__all__ = ["Recipe", "Run", "__version__", "compare", "evaluate", "load", "run"]

if TYPE_CHECKING:
    from chestxray.api import Run, load, run
    from chestxray.evaluation.arrays import compare, evaluate
    from chestxray.recipe import Recipe

_EXPORTS = {
    "compare": ("chestxray.evaluation.arrays", "compare"),
    "evaluate": ("chestxray.evaluation.arrays", "evaluate"),
    "Recipe": ("chestxray.recipe", "Recipe"),
    "Run": ("chestxray.api", "Run"),
    "load": ("chestxray.api", "load"),
    "run": ("chestxray.api", "run"),
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
