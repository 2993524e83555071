"""The conformance suite for `ModelPlugin`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack

import keras

from chestxray.plugin import ModelPlugin
from chestxray.testing import results_table
from chestxray.testing.build_checks import check_builds, check_names, check_parameters, check_seed
from chestxray.testing.export_checks import check_export
from chestxray.testing.finding_checks import check_findings
from chestxray.testing.fresh_process import FreshProcess
from chestxray.testing.function_checks import check_features, check_head, check_scale
from chestxray.testing.graph_checks import check_channels, check_flat, check_inference, check_sizes
from chestxray.testing.import_checks import module_of
from chestxray.testing.layer_checks import (
    check_cam_layer,
    check_freezing,
    check_gradcam,
    check_gradients,
    check_one_pass,
)
from chestxray.testing.metadata_checks import check_fields, check_metadata
from chestxray.testing.model_under_test import Subject
from chestxray.testing.precision_checks import check_float16
from chestxray.testing.process_checks import check_import, check_reload, check_replicas
from chestxray.testing.results import Check, CheckResult, chosen, run_all
from chestxray.testing.weights_checks import check_weights

#: Ordered so that an earlier failure explains later ones.
MODEL_CHECKS = (
    Check(check_fields),
    Check(check_metadata),
    Check(check_scale, needs=("fields",)),
    Check(check_features, needs=("scale",)),
    Check(check_names, needs=("features",)),
    Check(check_head, needs=("features",)),
    Check(check_sizes, needs=("names", "head")),
    Check(check_flat, needs=("sizes",)),
    Check(check_channels, needs=("sizes",)),
    Check(check_inference, needs=("channels",)),
    Check(check_builds, needs=("sizes",)),
    Check(check_parameters, needs=("builds",)),
    Check(check_seed, needs=("builds", "parameters")),
    Check(check_weights, needs=("metadata", "sizes")),
    Check(check_float16, needs=("channels",)),
    Check(check_cam_layer, needs=("flat",)),
    Check(check_gradcam, needs=("cam_layer", "channels")),
    Check(check_one_pass, needs=("gradcam",)),
    Check(check_gradients, needs=("channels",)),
    Check(check_freezing, needs=("flat",)),
    Check(check_import),  # late, since the fresh process imports keras during the checks above
    Check(check_reload, needs=("flat", "channels")),
    Check(check_replicas, needs=("reload",)),
    Check(check_findings, needs=("replicas",)),
    Check(check_export, needs=("flat", "channels", "parameters")),
)


def run_checks(
    plugin: ModelPlugin,
    *,
    name: str = "this architecture",
    module: str | None = None,
    only: Collection[str] | None = None,
    process: FreshProcess | None = None,
    before: Callable[[str], None] | None = None,
) -> list[CheckResult]:
    """Run the suite on `plugin` and return one result per check.

    Args:
        plugin: the plugin.
        name: the name of the plugin in messages.
        module: the module of the plugin's entry point; None: the module that defines `build`.
        only: names of checks; None: all of `MODEL_CHECKS`.
        process: a fresh process shared by several suites; None: a new one for this suite.
        before: a function that is called with the name of each check before it runs.

    Raises:
        InputError: `only` has a name that is not a check.
    """
    checks = chosen(MODEL_CHECKS, only)
    with ExitStack() as stack:
        elsewhere = process or stack.enter_context(FreshProcess(("keras", "chestxray.plugin")))
        if any(check.run.__module__ == check_import.__module__ for check in checks):
            elsewhere.start()  # it imports keras while the first checks run in this process
        subject = Subject(plugin, name, module_of(plugin.build) if module is None else module, elsewhere)
        stack.enter_context(subject.folder)
        # The fresh process uses the CPU; results of another kind of device would differ in the last digits.
        stack.enter_context(keras.device("cpu:0"))
        return run_all(checks, subject, before)


def check_model_plugin(plugin: ModelPlugin, *, only: Collection[str] | None = None) -> list[CheckResult]:
    """Run the suite on `plugin` in a test, and return the results.

    >>> check_model_plugin(plugin)  # doctest: +SKIP

    Raises:
        AssertionError: a check failed; the message is the table of all results.
        InputError: `only` has a name that is not a check.
    """
    __tracebackhide__ = True  # pytest then shows the table instead of this function
    return results_table.require_passed(run_checks(plugin, only=only))
