"""Shortcut controls of several runs together, such as an ensemble or the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.data import decoded
from chestxray.data.index import Index
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.shortcuts import controls
from chestxray.evaluation.shortcuts.verdict import STATES, state, together
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches


def of(
    runs: Mapping[str, Run],
    index: Index,
    test: Predictions,
    metrics: Mapping[str, Any],
    cache: str | Path | None,
    *,
    apart: bool = False,
) -> dict[str, Any] | None:
    """Return the content of ``controls.json``; None where `runs` were made without controls.

    Where the images of a run are still decoded in `cache`, the controls are trained and tested anew and
    compared with the predictions `test` and their `metrics`. Otherwise those of the runs are used, of each
    control the most serious one, and the verdict says so.

    Args:
        runs: by their names.
        index: the images, each with its split for all runs together.
        test: predictions of the runs together for the test.
        metrics: content of ``metrics.json`` for `test`.
        cache: the cache folder.
        apart: each run was tested on its own rows, as its controls are.
    """
    if not any(run.recipe.controls or run.controls for run in runs.values()):
        return None
    # An external test has no training rows to train a control on.
    trained = apart or (index.rows["split"] == "train").any()
    for run in runs.values() if trained else ():
        rows, recipe = run.index.rows, run.recipe
        place = {key: i for i, key in enumerate(controls.keys(index.rows))}
        order = [place.get(key, -1) for key in controls.keys(rows)]
        if recipe.image_size is None or len(rows) != len(index) or -1 in order:
            continue
        images = decoded.opened(
            run.index,
            recipe.image_size,
            recipe.fit,
            caches.root(cache),
            max_pixels=recipe.max_pixels,
            lungs=run.segmenter,
        )
        if images is not None:
            aligned = index.replace(index.rows.iloc[order])
            splits = [_splits(one, aligned) for one in runs.values()] if apart else None
            return controls.controls(
                aligned, images.pixels, test, metrics, splits=splits, fit=recipe.fit, seed=recipe.seed
            )
    return inherited(runs, metrics)


def _splits(run: Run, index: Index) -> np.ndarray:
    known = dict(zip(controls.keys(run.index.rows), run.index.rows["split"], strict=True))
    return np.array([known.get(key, "") for key in controls.keys(index.rows)])


def inherited(runs: Mapping[str, Run], metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the most serious item of each control, with the name of its run; None where no run has any."""
    known = {name: run.controls for name, run in runs.items() if run.controls}
    if not known:
        return None
    summary = together(list(known.values()))
    gravest: dict[str, dict[str, Any]] = {}
    for name, content in known.items():
        for item in content["controls"]:
            kept = gravest.get(item["name"])
            if kept is None or STATES.index(state(item)) < STATES.index(state(kept)):
                gravest[item["name"]] = {**item, "state": state(item), "inherited": name}
    verdicts = " ".join(f"{name}: {content['verdict']}" for name, content in known.items())
    first = next(iter(known.values()))
    return {
        **first,
        "verdict": "The images are no longer decoded in the cache, so that these controls are those of the members. "
        + verdicts,
        "finding": summary["finding"],
        "fires": summary["fires"],
        "inherited": list(known),
        "model": {name: metrics["test"][name] for name in ("auroc", "accuracy")},
        "controls": list(gravest.values()),
    }
