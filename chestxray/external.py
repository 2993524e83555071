"""A finished run on other data, or evaluated anew: what is left of the figures at a second hospital.

An external evaluation is a folder like a run's, without a model, with ``drop.json`` beside: how much
less each figure is there than on the run's own test.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from chestxray import backend, environment, refusal, report, run_folder, sources
from chestxray.assessment import assess, groups
from chestxray.calibration import calibrated
from chestxray.decision import FILE as DECISION
from chestxray.decision import Decision, decide
from chestxray.decoded import decode, key, readable
from chestxray.drop import difference
from chestxray.errors import DataError, InputError, LeakError
from chestxray.evaluation import Evaluation
from chestxray.files import explained, replacing, write_json, write_text
from chestxray.index import Index
from chestxray.prediction import Predictions
from chestxray.recipe import Recipe
from chestxray.report import card
from chestxray.report.cautions import TRAINING_RUN, of_training
from chestxray.report.record import Record
from chestxray.run_folder import Run

log = logging.getLogger(__name__)

#: The figures whose drop is told.
DROPS = ("auroc", "auprc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "mcc", "brier", "ece")
Part = Literal["all", "train", "validation", "test"]


def evaluate_on(
    run: Run, data: Recipe, cache: Path, *, part: Part = "all", output: Path | None = None, overwrite: bool = False
) -> Run:
    """Evaluate `run` on the data that `data` names, with all that its validation decided.

    Of `data` count the fields of the data and those of evaluation; classes, size and fit are the
    run's. `part` takes the rows of one official split alone. Images that the run trained or
    validated on are a leak: ``data.on_leak`` says whether to stop, leave them out or keep them.

    The folder (default: ``external/<data>`` in the run's) is returned as a `Run` without a model.

    Raises:
        DataError: classes that the run does not know; nothing to evaluate.
        LeakError: images of the run's training, where `data` says stop.
        InputError: a run without what evaluation needs.
    """
    trained = run.recipe
    decision = _decision(run, data)
    recipe = sources.absolute(_for_test(data, trained, run.index.classes, decision))
    folder = output or run.folder / "external" / run_folder.slug(*recipe.data)
    index = sources.load(recipe, cache, every_class=False).with_classes(run.index.classes)
    assert trained.image_size is not None
    decoded = decode(index, trained.image_size, trained.fit, cache, max_pixels=trained.max_pixels)
    index = readable(index, decoded, recipe.max_unreadable)
    index, audit = _without_leaks(_tested(index, part), run.index, recipe.on_leak)
    for column in recipe.by:
        groups(index.rows, column)
    log.info(
        "External test: %s, %d images. Loading TensorFlow ...", index.name, int((index.rows["split"] == "test").sum())
    )
    backend.start()
    from chestxray import explanation, trial

    familiar = refusal.Familiar.read(run.folder / refusal.FILE) if decision.features else None
    test, refusals = trial.repeat(run.model, decoded.pixels, index, decision, familiar, trained, cache)
    new = run_folder.create(folder, overwrite=overwrite or output is None)
    if not new:
        run_folder.clear(folder)
    with explained(folder):
        write_text(folder / run_folder.RECIPE, recipe.to_toml())
        write_json(folder / "audit.json", audit)
        with replacing(folder / "index.parquet") as temporary:
            index.write(temporary)
        test.write(folder / "predictions.csv")
        found = assess(test, index, recipe, decision, folder, refusals=refusals)
        write_json(folder / "drop.json", _drop(run, found, index.name))
        weak = [dataclasses.asdict(caution) for caution in of_training(Record.read(run.folder))]
        write_json(folder / f"{TRAINING_RUN}.json", {"name": run.folder.name, "cautions": weak})
        images = _images(test, index, decoded.pixels)
        explanation.write_panel(
            run.model, *run.cam_layer, test, images, recipe.heatmaps, recipe.seed, folder / "heatmaps"
        )
        write_json(folder / "environment.json", _environment(run, index))
        report.write(folder, samples=images)
    if output is None:
        # The run's own card tells of its external tests.
        card.write(Record.read(run.folder))
    return Run(folder)


def evaluate_again(run: Run, changes: Mapping[str, Any], cache: Path) -> Run:
    """Evaluate the test of `run` anew, with other choices of evaluation than it was made with.

    `changes` are fields of the recipe: ``by``, ``abstain``, ``sensitivity``, ``positive``,
    ``replicates``. The model and its probabilities stay as they are; the run's recipe, its figures
    and its report are replaced.

    Raises:
        InputError: a column that the data has not, or another impossible choice.
    """
    recipe = run.recipe.replace(**changes)
    decision = _decision(run, recipe)
    for column in recipe.by:
        groups(run.index.rows, column)
    test, validation = run.predictions.of("test"), run.predictions.of("validation")
    with explained(run.folder):
        assess(test, run.index, recipe, decision, run.folder, validation=validation)
        write_text(run.folder / run_folder.RECIPE, recipe.to_toml())
        report.write(run.folder, samples=_samples(run, cache))
    return Run(run.folder)


def _decision(run: Run, wanted: Recipe) -> Decision:
    """What the run decided by, with other thresholds or abstention where `wanted` asks for them."""
    path = run.folder / DECISION
    if not path.is_file():
        raise InputError(f"{run.folder} has no {DECISION}: run it again with this version of chestxray.")
    known = Decision.read(path)
    asked = {"sensitivity": wanted.sensitivity, "abstain": wanted.abstain, "positive": wanted.positive}
    if not any(value is not None for value in asked.values()):
        return known
    validation = calibrated(run.predictions.of("validation"), 1 / known.temperature)
    recipe = run.recipe.replace(**{name: value for name, value in asked.items() if value is not None})
    return dataclasses.replace(decide(validation, recipe), temperature=known.temperature, features=known.features)


def _for_test(data: Recipe, trained: Recipe, classes: tuple[str, ...], decision: Decision) -> Recipe:
    """The recipe of the evaluation: the run's, on other data."""
    kept = ("data", "path", "data_option", "patient_pattern", "label_pattern", "map", "drop", "on_leak", "by")
    own = {name: getattr(data, name) for name in (*kept, "max_unreadable", "abstain", "sensitivity")}
    return trained.replace(
        **own,
        classes=classes,
        positive=decision.positive,
        test_data=(),
        split="auto",
        folds=0,
        fold=None,
        held_out=None,
    )


def _tested(index: Index, part: Part) -> Index:
    chosen = index.rows["unreadable"] == ""
    if part != "all":
        chosen &= index.rows["split"] == part
    if not chosen.any():
        raise DataError(f"{index.name} has no images in its official split {part!r}.")
    return index.replace(index.rows.assign(split=np.where(chosen, "test", "")))


def _without_leaks(index: Index, trained: Index, on_leak: str) -> tuple[Index, dict[str, Any]]:
    seen = trained.rows[trained.rows["split"].isin(["train", "validation"])]
    rows = index.rows
    known = rows["pixel_hash"].isin(set(seen["pixel_hash"])) & (rows["split"] == "test")
    tested = int((rows["split"] == "test").sum())
    if known.any() and on_leak == "stop":
        raise LeakError(
            f"{int(known.sum())} of {tested} images of {index.name} are among those that the run was "
            " trained or chosen on. Allowed: --on-leak drop (leave them out of this test) or --on-leak ignore; "
            f"the first: {rows.loc[known, 'path'].iloc[0]}."
        )
    marks = rows["unreadable"].map(lambda reason: f"unreadable: {reason}" if reason else "")
    left_out = known & (on_leak == "drop")
    marks = marks.mask(left_out, "dropped: the run was trained or chosen on it")
    rows = rows.assign(audit=marks, split=rows["split"].mask(left_out, ""))
    if not (rows["split"] == "test").any():
        raise DataError(f"All images of {index.name} are among those that the run was trained or chosen on.")
    repeated = rows[(rows["split"] == "test") & rows.duplicated("pixel_hash", keep=False)]
    audit = {
        "exact_duplicates": {
            "groups": [list(group["path"]) for _, group in repeated.groupby("pixel_hash", sort=False)],
            "across_splits": [[path] for path in rows.loc[known, "path"]],
        },
        "patients": {"across_splits": []},
        "unreadable": [
            {"path": row.path, "reason": row.unreadable} for row in rows[rows["unreadable"] != ""].itertuples()
        ],
        "on_leak": on_leak,
        "dropped": [
            {"path": path, "reason": "the run was trained or chosen on it"} for path in rows.loc[left_out, "path"]
        ],
        "notes": [f"External data: the model was trained on {trained.name} and never saw these.", *index.notes],
    }
    return index.replace(rows), audit


def _drop(run: Run, found: Evaluation, name: str) -> dict[str, Any]:
    internal = Evaluation.from_json(run.metrics)
    figures = {
        metric: {
            "internal": internal.test[metric].to_json(),
            "external": found.test[metric].to_json(),
            "drop": difference(internal, found, metric).to_json(),
        }
        for metric in DROPS
        if internal.positive == found.positive
    }
    return {
        "internal": {"name": run.index.name, "rows": internal.rows, "patients": internal.patients},
        "external": {"name": name, "rows": found.rows, "patients": found.patients},
        "figures": figures,
    }


def _environment(run: Run, index: Index) -> dict[str, Any]:
    data = {
        "name": index.name,
        "images": len(index),
        "fingerprint": environment.fingerprint(index),
        "licence": index.licence,
        "citation": index.citation,
    }
    return run.environment | {"data": data, "started": environment.now(), "finished": environment.now(), "seconds": {}}


def _images(predictions: Predictions, index: Index, pixels: np.ndarray) -> dict[str, np.ndarray]:
    places = pd.Series(range(len(index)), index=index.rows["path"])
    return {path: pixels[places[path]] for path in predictions.rows["path"]}


def _samples(run: Run, cache: Path) -> dict[str, np.ndarray]:
    """Images of the run, as far as they are decoded in the cache: a new report needs no old file."""
    recipe = run.recipe
    assert recipe.image_size is not None
    if not (cache / "decoded" / key(run.index, recipe.image_size, recipe.fit, recipe.max_pixels)).is_dir():
        log.info("The images are no longer decoded in the cache: the report goes without its grids of radiographs.")
        return {}
    decoded = decode(run.index, recipe.image_size, recipe.fit, cache, max_pixels=recipe.max_pixels)
    return {path: decoded.pixels[i] for i, path in enumerate(run.index.rows["path"])}
