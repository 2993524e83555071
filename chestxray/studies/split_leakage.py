"""Leakage study: the same model trained under a leaky split and under leak-free ones.

A split by image puts images of one patient on both sides, and the model's figures are too good. The tests have
different images and partly the same patients: the interval of a difference accounts for these and, where each
split was trained several times, for the variance of training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from chestxray.data import sources
from chestxray.data.grouping import patient_keys
from chestxray.data.index import SPLITS as INDEX_SPLITS
from chestxray.data.index import Patients
from chestxray.errors import DataError, InputError
from chestxray.evaluation.evaluate import headline_class
from chestxray.evaluation.finding_predictions import FindingPredictions, Known
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired import shared_patients
from chestxray.evaluation.paired.candidate_figures import Estimated, estimated
from chestxray.evaluation.paired.comparison import align, check_metric
from chestxray.evaluation.paired.finding_comparison import align_findings
from chestxray.evaluation.paired.finding_mean_comparison import estimated_mean
from chestxray.evaluation.paired.generalisation_gap import averaged, between
from chestxray.evaluation.predictions import Predictions
from chestxray.execution.executor import Executor
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches
from chestxray.studies import leakage_page, study
from chestxray.studies.candidates import check_comparison
from chestxray.studies.leakage_result import Leakage, Split


def measure(
    recipe: Recipe,
    folder: str | Path | None = None,
    cache: str | Path | None = None,
    *,
    metric: str = "auroc",
    seeds: int = 1,
    overwrite: bool = False,
    executor: Executor | None = None,
) -> tuple[Leakage, Path]:
    """Train the model of `recipe` under each split and write the result; return it and the path of its page.

    The splits are random by image, by patient, and the official one where the data has one. Leaks of a split are
    kept. With several `seeds` the figures are means over as many trainings of each split, and their intervals
    include the variance of training. Other arguments and errors are those of `study.run`; ``split``, ``on_leak``
    and folds of `recipe` are not used.

    Raises:
        DataError: no finding can be scored in the tests of all splits.
        InputError: an unknown metric; separate test data, which would be the same under every split.
    """
    if recipe.test_data:
        raise InputError("What a split is worth is measured on a test that is split off; leave out test_data.")
    plain = recipe.replace(split="auto", folds=0, fold=None, held_out=None, on_leak="ignore")
    index = sources.load_index(plain, caches.root(cache))
    check_comparison(metric, index.task)
    check_metric(metric)  # the figures of plugins are not measured here
    given = index.rows
    splits = ["random", "grouped", *(["official"] if (given["split"] != "").any() else [])]
    recipes = {name: plain.replace(split=name) for name in splits}
    made = study.run(recipes, folder, cache, seeds=seeds, overwrite=overwrite, below="leakage", executor=executor)
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
    official = _official(given, runs["official"][0].index.rows) if "official" in runs else ""
    if some.task == "findings":
        return _of_findings(runs, metric, official)
    positive = some.metrics["positive"]
    tests = {name: _aligned({run.folder.name: run.predictions.of("test") for run in r}) for name, r in runs.items()}
    rows = {name: made[0].index.rows for name, made in runs.items()}
    return _leakage(runs, tests, rows, metric, positive, official)


def _leakage(
    runs: Mapping[str, tuple[Run, ...]],
    tests: Mapping[str, tuple[Predictions, ...]],
    rows: Mapping[str, pd.DataFrame],
    metric: str,
    positive: str | None,
    official: str,
) -> Leakage:
    """Return the result of tests of classes, by split; `rows` are those of the index."""
    replicates, seed = _drawing(runs)
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
    random, gains = models["random"], {}
    for name, model in models.items():
        if name != "random":
            common = shared_patients.covariance(
                random.tables, model.tables, metric, chosen, replicates=replicates, seed=seed
            )
            gains[name] = _gain(random, model, metric, common)
            if averaged(metric, positive) and _present(random) != _present(model):
                gains[name] = Figure(None, None, None)
    return _result(runs, tests, rows, models, gains, metric, positive, official)


def _of_findings(runs: Mapping[str, tuple[Run, ...]], metric: str, official: str) -> Leakage:
    """Return the result for the mean over findings, with that of each; a finding is scored where it is in all tests."""
    replicates, seed = _drawing(runs)
    tests = {
        name: align_findings({name: [run.finding_predictions.of("test") for run in made]})[name]
        for name, made in runs.items()
    }
    too_few = {
        name: next((reason for tables in tests.values() if (reason := _too_few(tables[0], name))), "")
        for name in tests["random"][0].findings
    }
    scored = [name for name, reason in too_few.items() if not reason]
    if not scored:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in too_few.items())
        raise DataError(f"No finding can be scored in the tests of all splits. {reasons}.")
    of_each, own = {}, {name: dict[str, Mapping[str, Figure]]() for name in tests}
    for finding in scored:
        alone = {
            name: tuple(_numbered(table.of_finding(finding)) for table in tables) for name, tables in tests.items()
        }
        rows = {name: made[0].index.of_finding(finding).rows for name, made in runs.items()}
        of_each[finding] = _leakage(runs, alone, rows, metric, finding, official)
        for split in of_each[finding].splits:
            own[split.name][finding] = split.figures
    models = {
        name: estimated_mean(name, tables, own[name], metric, replicates=replicates, seed=seed)
        for name, tables in tests.items()
    }
    gains = {}
    for name, tables in tests.items():
        if name != "random":
            common = shared_patients.covariance_of_means(
                tests["random"], tables, metric, scored, replicates=replicates, seed=seed
            )
            gains[name] = _gain(models["random"], models[name], metric, common)
    all_rows = {name: made[0].index.rows for name, made in runs.items()}
    found = _result(runs, tests, all_rows, models, gains, metric, None, official)
    not_scored = {name: reason for name, reason in too_few.items() if reason}
    return dataclasses.replace(found, findings=of_each, not_scored=not_scored)


def _result(
    runs: Mapping[str, tuple[Run, ...]],
    tests: Mapping[str, Sequence[Predictions]] | Mapping[str, Sequence[FindingPredictions]],
    rows: Mapping[str, pd.DataFrame],
    models: Mapping[str, Estimated],
    gains: Mapping[str, Figure],
    metric: str,
    positive: str | None,
    official: str,
) -> Leakage:
    some = runs["random"][0]
    splits = tuple(
        Split(
            name=name,
            runs=runs[name],
            figures=model.figures,
            training=int((rows[name]["split"] == "train").sum()),
            rows=len(tests[name][0].rows),
            patients=Patients.of(tests[name][0].rows),
            leaking=leaking(rows[name]),
            shared=shared_patients.shared(tests["random"][0], tests[name][0]) if name != "random" else 0,
            repeats=tuple(None if math.isnan(value) else float(value) for value in model.values),
        )
        for name, model in models.items()
    )
    return Leakage(
        model=some.recipe.model,
        data=some.environment["data"]["name"],
        metric=metric,
        positive=positive,
        splits=splits,
        gains=gains,
        known=float((rows["random"]["patient"] != "").mean()),
        official=official,
    )


def _gain(random: Estimated, model: Estimated, metric: str, common: float) -> Figure:
    """Return the figure of the random split minus the other's; `common` is their covariance over shared patients."""
    errors = random.spread().error * model.spread().error
    together = min(1.0, max(-1.0, common / errors)) if errors > 1e-12 else 0.0
    return between(random.figures[metric], model.figures[metric], together)


def _drawing(runs: Mapping[str, tuple[Run, ...]]) -> tuple[int, int]:
    """Return the number of bootstrap replicates and the seed."""
    recipe = runs["random"][0].recipe
    return recipe.replicates, recipe.seed


def _too_few(table: FindingPredictions, finding: str) -> str:
    return Known.of(table.of_finding(finding), finding).too_few


def _numbered(table: Predictions) -> Predictions:
    return Predictions(table.rows.reset_index(drop=True), table.classes)


def _present(model: Estimated) -> set[str]:
    return set(model.tables[0].rows["label"])


def _aligned(tests: Mapping[str, Predictions]) -> tuple[Predictions, ...]:
    """Return the test of each training of one split, with rows in the same order."""
    return tuple(align(tests).values())


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
