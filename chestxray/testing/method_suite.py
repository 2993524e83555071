"""The conformance suites of `MetricPlugin` and the other methods, by the kind of the plugin."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from chestxray.errors import InputError
from chestxray.evaluation.weighted_metrics import HEADLINE
from chestxray.plugin import AugmentationPlugin, ExplanationPlugin, LossPlugin, MetricPlugin, SegmenterPlugin
from chestxray.recipe import AUGMENTATIONS, EXPLANATIONS, LOSSES
from chestxray.testing import results_table
from chestxray.testing.method_checks import Method
from chestxray.testing.results import Check, CheckResult, chosen, run_all


def run_method_checks(
    plugin: Any,
    *,
    name: str = "",
    module: str = "",
    only: Collection[str] | None = None,
    before: Callable[[str], None] | None = None,
) -> list[CheckResult]:
    """Run the suite of its kind on `plugin` and return one result per check.

    Args:
        plugin: a `MetricPlugin`, `LossPlugin`, `AugmentationPlugin`, `ExplanationPlugin` or `SegmenterPlugin`.
        name: the name of its entry point; ``""``: that the name is free is not checked.
        module: the module of its entry point; ``""``: the module that defines its function.
        only: names of checks; None: all of the suite.
        before: a function that is called with the name of each check before it runs.

    Raises:
        InputError: `plugin` is of no such kind, or `only` has a name that is not a check.
    """
    checks, function, reserved = suite_of(plugin)
    return run_all(chosen(checks, only), Method(plugin, function, name, module, reserved), before)


def check_method_plugin(plugin: Any, *, only: Collection[str] | None = None) -> list[CheckResult]:
    """Run the suite of its kind on `plugin` in a test, and return the results.

    >>> check_method_plugin(plugin)  # doctest: +SKIP

    Raises:
        AssertionError: a check failed; the message is the table of all results.
        InputError: `plugin` is of no such kind, or `only` has a name that is not a check.
    """
    __tracebackhide__ = True  # pytest then shows the table instead of this function
    return results_table.require_passed(run_method_checks(plugin, only=only))


def suite_of(plugin: Any) -> tuple[tuple[Check, ...], Any, tuple[str, ...]]:
    """Return the checks for a plugin, its function, and the names that it may not have."""
    if isinstance(plugin, MetricPlugin):
        from chestxray.testing.metric_checks import METRIC_CHECKS

        return METRIC_CHECKS, plugin.compute, HEADLINE
    if isinstance(plugin, LossPlugin):
        from chestxray.testing.loss_checks import LOSS_CHECKS

        return LOSS_CHECKS, plugin.compute, LOSSES
    if isinstance(plugin, AugmentationPlugin):
        from chestxray.testing.augmentation_checks import AUGMENTATION_CHECKS

        return AUGMENTATION_CHECKS, plugin.augment, AUGMENTATIONS
    if isinstance(plugin, ExplanationPlugin):
        from chestxray.testing.explanation_checks import EXPLANATION_CHECKS

        return EXPLANATION_CHECKS, plugin.explain, EXPLANATIONS
    if isinstance(plugin, SegmenterPlugin):
        from chestxray.testing.segmenter_checks import SEGMENTER_CHECKS

        return SEGMENTER_CHECKS, plugin.masks, ()
    kinds = "MetricPlugin, LossPlugin, AugmentationPlugin, ExplanationPlugin or SegmenterPlugin"
    raise InputError(f"check_method_plugin takes a {kinds}. Received: {type(plugin).__name__}.")
