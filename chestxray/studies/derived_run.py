"""A folder of predictions that no single model made, such as an ensemble's: as a run's, but for what
only a training leaves.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chestxray.data.index import Index
from chestxray.evaluation.decision.rule import FILE as DECISION
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.selection import decide
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.shortcuts import controls as shortcut_controls
from chestxray.recipe import Recipe
from chestxray.report import html_report
from chestxray.runs import provenance, run_folder
from chestxray.runs.results import assess
from chestxray.runs.run_folder import Run
from chestxray.storage.files import explained, replacing, write_json, write_text


def write(
    folder: Path,
    recipe: Recipe,
    index: Index,
    predictions: Predictions,
    *,
    positive: str | None,
    audit: Mapping[str, Any],
    record: Mapping[str, Any],
    controls: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
    extra: Mapping[str, Any] | None = None,
    report: bool = True,
) -> Run:
    """Write `folder` so that it is read as a run's, see docs/run-folder.md, and return it.

    Thresholds are chosen on the validation rows of `predictions`, and decide; without any, since nothing
    may be chosen on the test, there is no ``decision.json`` and the column ``predicted`` stays as it is.
    The probabilities stay as they are.

    Args:
        folder: may hold what was written there before.
        recipe: written as ``recipe.toml``; its options of the evaluation, such as ``replicates`` and ``by``, are used.
        index: the images, each with the split it has in `predictions`.
        predictions: the test, and the validation where there is one.
        positive: of two classes, the one that sensitivity speaks of.
        audit: the contents of ``audit.json``.
        record: the contents of ``environment.json`` but for the time when it was finished.
        controls: the contents of ``controls.json`` from those of ``metrics.json``, None for no such file.
        extra: further JSON files of the folder, by their names without ending.
        report: whether the report is written now.

    Raises:
        OutputError: it cannot be written to.
        DataError: predictions that cannot be evaluated.
    """
    test, validation = predictions.of("test"), predictions.of("validation")
    plain = recipe.replace(calibrate=False, positive=positive)
    known = len(validation.rows) > 0
    decision = Decision(test.classes, positive, Calibration(), {}, "")
    if known:
        decision = decide(validation, plain, Calibration())
        predictions = decision.applied(predictions)
        test, validation = predictions.of("test"), predictions.of("validation")
    with explained(folder):
        write_text(folder / run_folder.RECIPE, recipe.to_toml())
        write_json(folder / "audit.json", audit)
        with replacing(folder / "index.parquet") as temporary:
            index.write(temporary)
        predictions.write(folder / "predictions.csv")
        found = assess(test, index, plain, decision, folder, validation=validation if known else None)
        for name in () if known else (DECISION, "operating_points.json"):
            (folder / name).unlink(missing_ok=True)
        if (beside := controls(found.to_json())) is None:
            (folder / shortcut_controls.FILE).unlink(missing_ok=True)
        else:
            shortcut_controls.write(folder, beside)
        for name, content in (extra or {}).items():
            write_json(folder / f"{name}.json", content)
        shutil.rmtree(folder / "heatmaps", ignore_errors=True)
        write_json(folder / "environment.json", {**record, "finished": provenance.now()})
        if report:
            html_report.write(folder)
    return Run(folder)
