"""What an external evaluation has beside the figures: the generalisation gap, and what weakens the training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from chestxray.evaluation.evaluate import Evaluation
from chestxray.evaluation.paired.generalisation_gap import difference
from chestxray.report.limitations import of_training
from chestxray.runs import run_folder
from chestxray.runs.run_folder import Run

#: The figures that are compared with those of the training run's own test.
COMPARED = ("auroc", "auprc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "mcc", "brier", "ece")


def compared(internal: Evaluation, external: Evaluation, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of ``generalisation_gap.json``; `names` has the name of the data of each side.

    Where the sides have different positive classes there are no figures.
    """
    sides = {"internal": internal, "external": external}
    figures = {
        metric: {side: found.test[metric].to_json() for side, found in sides.items()}
        | {"gap": difference(internal, external, metric).to_json()}
        for metric in COMPARED
        if internal.positive == external.positive
    }
    return {
        **{side: {"name": names[side], "rows": one.rows, **one.patients.to_json()} for side, one in sides.items()},
        "figures": figures,
    }


def training_cautions(name: str, run: Run) -> dict[str, Any]:
    """Return the content of ``training_run.json``: the `name` of a run of classes, and what weakens it everywhere."""
    found = of_training(run_folder.open_complete(run.folder))
    return {"name": name, "cautions": [dataclasses.asdict(caution) for caution in found]}
