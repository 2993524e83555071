"""The conformance suites: checks that a plugin works with the rest of chestxray.

The test of a plugin is three lines::

    from chestxray.testing import check_model_plugin
    from chestxray_my_model import plugin

    def test_my_model():
        check_model_plugin(plugin)

`check_model_plugin`, `check_source_plugin` and, for metrics and other methods, `check_method_plugin` raise an
AssertionError with the table of results if a check fails; `run_checks` and the like return the results, and
``chestxray plugin check NAME`` prints them. A check is a function that returns nothing or raises `CheckFailed`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "CheckFailed",
    "CheckResult",
    "CheckSkipped",
    "check_method_plugin",
    "check_model_plugin",
    "check_source_plugin",
    "run_checks",
    "run_method_checks",
    "run_source_checks",
]

if TYPE_CHECKING:
    from chestxray.testing.method_suite import check_method_plugin, run_method_checks
    from chestxray.testing.model_suite import check_model_plugin, run_checks
    from chestxray.testing.results import CheckFailed, CheckResult, CheckSkipped
    from chestxray.testing.source_suite import check_source_plugin, run_source_checks

_EXPORTS = {
    "CheckFailed": "results",
    "CheckResult": "results",
    "CheckSkipped": "results",
    "check_method_plugin": "method_suite",
    "check_model_plugin": "model_suite",
    "check_source_plugin": "source_suite",
    "run_checks": "model_suite",
    "run_method_checks": "method_suite",
    "run_source_checks": "source_suite",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that neither authors of source plugins nor the process that times imports wait for keras.
    if name not in _EXPORTS:
        raise AttributeError(f"module 'chestxray.testing' has no attribute {name!r}")
    return getattr(import_module(f"chestxray.testing.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
