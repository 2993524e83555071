"""Leakage study: the same model trained under a leaky split and under leak-free ones.

A split by image puts images of one patient on both sides, and the model's figures are too good. The tests have
different images and partly the same patients: the interval of a difference accounts for these and, where each
split was trained several times, for the variance of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from chestxray.data import sources
from chestxray.data.grouping import patient_keys
from chestxray.data.index import SPLITS as INDEX_SPLITS
from chestxray.data.index import Patients
from chestxray.errors import InputError
from chestxray.evaluation.evaluate import headline_class
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired import shared_patients
from chestxray.evaluation.paired.candidate_figures import Estimated, estimated
from chestxray.evaluation.paired.comparison import align, check_metric
from chestxray.evaluation.paired.generalisation_gap import averaged, between
from chestxray.evaluation.predictions import Predictions
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches
from chestxray.studies import leakage_page, study
from chestxray.studies.leakage_result import Leakage, Split


def measure(
    recipe: Recipe,
    folder: str | Path | None = None,
    cache: str | Path | None = None,
    *,
    metric: str = "auroc",
    seeds: int = 1,
    overwrite: bool = False,
) -> tuple[Leakage, Path]:
    """Train the model of `recipe` under each split and write the result; return it and the path of its page.

    The splits are random by image, by patient, and the official one where the data has one. Leaks of a split are
    kept. With several `seeds` the figures are means over as many trainings of each split, and their intervals
    include the variance of training. Other arguments and errors are those of `study.run`; ``split``, ``on_leak``
    and folds of `recipe` are not used.

    Raises:
        InputError: an unknown metric; separate test data, which would be the same under every split.
    """
    check_metric(metric)
    if recipe.test_data:
        raise InputError("What a split is worth is measured on a test that is split off; leave out test_data.")
    plain = recipe.replace(split="auto", folds=0, fold=None, held_out=None, on_leak="ignore")
    given = sources.load_index(plain, caches.root(cache)).rows
    splits = ["random", "grouped", *(["official"] if (given["split"] != "").any() else [])]
    recipes = {name: plain.replace(split=name) for name in splits}
    made = study.run(recipes, folder, cache, seeds=seeds, overwrite=overwrite, below="leakage")
    found = _found({name: made.runs(name) for name in splits}, metric, given)
    return found, leakage_page.write(found, made.folder)


def _official(rows: pd.DataFrame, used: pd.DataFrame) -> str:
    """Return sentences on the official split: the sources of `rows` that have one, and the number of images that the
    rows `used` have in another split.
    """
    given, without = [], []
    for source, part in rows.groupby("source"):
        counts = {name: int((part["split"] == name).sum()) for name in INDEX_SPLITS}
        if any(counts.values()):
            given.append(f"{source} ({', '.join(f'{name} {count:,}' for name, count in counts.items())})")
        else:
            without.append(str(source))
    drawn = f"; {', '.join(without)} without one: drawn by patient" if without else ""
    there = rows[rows["split"] != ""].set_index("path")["split"]
    here = used[used["split"] != ""].set_index("path")["split"].reindex(there.index).dropna()
    moved = int((here != there[here.index]).sum())
    said = f"The official split is that of {', '.join(given)}{drawn}."
    why = "a test that is missing, or too few images to validate on, are drawn anew by patient"
    return f"{said} Of its images {moved:,} stand elsewhere: {why}." if moved else said


def _found(runs: Mapping[str, tuple[Run, ...]], metric: str, given: pd.DataFrame) -> Leakage:
    some = runs["random"][0]
    positive = some.metrics["positive"]
    replicates, seed = some.recipe.replicates, some.recipe.seed
    tests = {name: _tests(made) for name, made in runs.items()}
    chosen = headline_class(tests["random"][0].classes, positive)
    models = {
        name: estimated(
            {name: tables},
            "seeds" if len(tables) > 1 else "one",
            metric,
            chosen,
            tables[0].clusters,
            replicates=replicates,
            seed=seed,
        )[0]
        for name, tables in tests.items()
    }
    splits = tuple(
        Split(
            name=name,
            runs=runs[name],
            figures=model.figures,
            training=int((runs[name][0].index.rows["split"] == "train").sum()),
            rows=len(tests[name][0].rows),
            patients=Patients.of(tests[name][0].rows),
            leaking=leaking(runs[name][0].index.rows),
            shared=shared_patients.shared(tests["random"][0], tests[name][0]) if name != "random" else 0,
            repeats=tuple(None if math.isnan(value) else float(value) for value in model.values),
        )
        for name, model in models.items()
    )
    random = models["random"]
    gains = {}
    for name, model in models.items():
        if name != "random":
            common = shared_patients.covariance(
                random.tables, model.tables, metric, chosen, replicates=replicates, seed=seed
            )
            errors = random.spread().error * model.spread().error
            together = min(1.0, max(-1.0, common / errors)) if errors > 1e-12 else 0.0
            gains[name] = between(random.figures[metric], model.figures[metric], together)
            if averaged(metric, positive) and _present(random) != _present(model):
                gains[name] = Figure(None, None, None)
    return Leakage(
        model=some.recipe.model,
        data=some.environment["data"]["name"],
        metric=metric,
        positive=positive,
        splits=splits,
        gains=gains,
        known=float((some.index.rows["patient"] != "").mean()),
        official=_official(given, runs["official"][0].index.rows) if "official" in runs else "",
    )


def _present(model: Estimated) -> set[str]:
    return set(model.tables[0].rows["label"])


def _tests(runs: Sequence[Run]) -> tuple[Predictions, ...]:
    """Return the test of each training of one split, with rows in the same order."""
    return tuple(align({run.folder.name: run.predictions.of("test") for run in runs}).values())


def leaking(rows: pd.DataFrame) -> int:
    """Return the number of test images whose patient, or a copy, is in training or validation. Copies have the same
    pixels or, where near copies were searched for, are near copies.
    """
    used = rows[rows["split"].isin(["train", "validation"])]
    test = rows[rows["split"] == "test"]
    # The key of an image of unknown patient is its path, which no other image has.
    found = patient_keys(test).isin(patient_keys(used)) | test["pixel_hash"].isin(used["pixel_hash"])
    if "near_group" in rows:
        found |= (test["near_group"] != "") & test["near_group"].isin(used["near_group"])
    return int(found.sum())
