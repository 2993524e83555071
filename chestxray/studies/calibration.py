"""Calibration of a model that exists, a ready model or a finished run, on other films, as a training ends with it.

The films are split as those of a run are. Validation chooses calibration and thresholds, training films show what
radiographs look like (`out_of_distribution`) and train the controls, the test is predicted once: the folder that is
written is that of a run, but that nothing was trained.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np

from chestxray import registry, workflow
from chestxray.data import sources
from chestxray.data.index import SPLITS, Index
from chestxray.errors import DataError, LeakError
from chestxray.evaluation.decision import finding_rule
from chestxray.evaluation.decision.finding_rule import FindingDecision, Rule
from chestxray.evaluation.decision.rule import FILE as DECISION
from chestxray.evaluation.finding_predictions import FEWEST_PATIENTS, FindingPredictions, Known
from chestxray.evaluation.predictions import Predictions
from chestxray.models import startup
from chestxray.plugin import ModelPlugin
from chestxray.recipe import Recipe
from chestxray.runs import output_folder, run_folder
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_text
from chestxray.studies import contamination

log = logging.getLogger(__name__)

#: Shares of the films that calibrate and that test, where the data have no official split: nothing is trained, and what
#: is left shows what radiographs look like.
VALIDATION_SHARE, TEST_SHARE = 0.4, 0.2


def calibrate(folder: Path, data: Recipe, cache: Path, *, output: Path | None = None, overwrite: bool = False) -> Run:
    """Calibrate the model in `folder` on the films of the recipe `data`, and return the folder of the result.

    The recipe's fields of data, splits and evaluation are used; network, image size and fit are the model's. Where
    validation has too few patients for a finding, its calibration and threshold stay those of the model. Films that a
    run was trained or chosen on, and films of their patients, are left out or refused, as ``data.on_leak`` says.

    Raises:
        InputError: `folder` has no model; the architecture is not installed.
        DataError: classes that the model does not have, or none of its findings; too few patients to fit anything.
        LeakError: films of the model's training, where `data` says stop.
        OutputError: `output` has content and may not be overwritten.
    """
    run = run_folder.open_trained(folder, task=None)
    before = finding_rule.read(run.folder / DECISION)
    source = run.published or str(run.folder)
    # Its shift of the class weights is undone in the model already.
    recipe, layer = _recipe(run, data, before)
    if run.segmenter is not None:
        run.segmenter.require()
    entry = registry.find(registry.MODELS, recipe.model)
    plugin: ModelPlugin = registry.load_entry(registry.MODELS, entry)
    place = output or output_folder.default_folder(f"{recipe.model}-calibrated", recipe.data[0])
    clock = workflow.Clock()
    new = output_folder.create(place, overwrite=overwrite)
    try:
        with output_folder.alone(place):
            prepared = workflow.prepare(
                recipe, cache, clock, trained_on=contamination.trained_on(run), model=(run.task, before.classes)
            )
            prepared = _unseen(run, recipe, prepared, cache)
            _require_enough(prepared.index)
            startup.start()
            from chestxray.models import devices
            from chestxray.models.assembly import Built

            strategy = devices.strategy(recipe.devices)
            with strategy.scope():
                model = run.model
            model.trainable = False
            digest = run.environment.get("model", {}).get("published_weights", {}).get("sha256", "")
            built = Built(model, (layer,) if layer else (), plugin, frozenset(), digest)
            if not new:
                output_folder.clear(place)
            job = workflow.Job(recipe, plugin, entry, prepared, built, strategy, place, cache, clock)
            write_text(place / run_folder.RECIPE, recipe.to_toml())
            workflow.begin(prepared, place)
            return workflow.conclude(job, calibrated=(source, before))
    except BaseException:
        if new and not (place / run_folder.REPORT).is_file():
            output_folder.clear(place)
            place.rmdir()
        raise


def _recipe(run: Run, data: Recipe, before: Rule) -> tuple[Recipe, str | None]:
    """Return the recipe of the calibration, and the layer by whose output radiographs are known, None for none."""
    fields = (
        "data", "path", "data_option", "patient_pattern", "label_pattern", "map", "drop", "uncertain", "view",
        "on_leak", "max_unreadable", "split", "split_seed", "validation_share", "test_share", "by", "abstain",
        "sensitivity", "confidence", "prevalence", "replicates", "heatmaps",
    )  # fmt: skip
    own = {name: getattr(data, name) for name in fields}
    published = run.environment.get("model", {}).get("published_head", {}) if run.published else {}
    layer = before.features or published.get("features") or None
    positive = None if isinstance(before, FindingDecision) else before.positive
    recipe = run.recipe.replace(
        **own, classes=before.classes, positive=positive, test_data=(), folds=0, fold=None, held_out=None,
        calibrate=True, refuse=data.refuse if layer else 0.0, controls=False,
    )  # fmt: skip
    return sources.absolute(recipe), layer


def _unseen(run: Run, recipe: Recipe, prepared: workflow.Prepared, cache: Path) -> workflow.Prepared:
    """Return the data without the films, and films of patients, that the run was trained or chosen on.

    Raises:
        LeakError: there are such films, and ``on_leak`` is ``stop``.
    """
    index, audit = prepared.index, prepared.audit
    assert audit is not None, "prepare has audited"
    used = index.rows["split"].isin(SPLITS)
    tested = index.replace(index.rows.assign(split=np.where(used, "test", "")))
    seen = contamination.search(run, recipe, tested, prepared.films, cache)
    notes = (*audit.notes, *(note for note in seen.notes if note not in audit.notes))
    audit = dataclasses.replace(audit, notes=notes)
    if seen.reasons and recipe.on_leak == "stop":
        raise LeakError(
            f"{len(seen.reasons)} of {int(used.sum())} images of {index.name} are among those that the run was trained "
            "or chosen on, or of their patients: on these its probabilities are better than on others. Allowed: "
            "--on-leak drop (leave them out) or --on-leak ignore."
        )
    if seen.reasons and recipe.on_leak == "drop":
        left_out = index.rows["path"].isin(seen.reasons)
        log.info("Left out, since the model has seen them or their patients: %d images.", int(left_out.sum()))
        marks = index.rows["audit"].mask(left_out, "dropped: the model has seen it, or its patient")
        index = index.replace(index.rows.assign(split=index.rows["split"].mask(left_out, ""), audit=marks))
    for note in seen.notes:
        log.info("%s", note)
    return dataclasses.replace(prepared, index=index, audit=audit)


def _require_enough(index: Index) -> None:
    """Raise `DataError` if validation has too few patients for any finding, or of a class."""
    places = np.flatnonzero((index.rows["split"] == "validation").to_numpy())
    test = (index.rows["split"] == "test").any()
    if not len(places) or not test:
        raise DataError(f"{index.name} has no {'test' if len(places) else 'validation'} images left to calibrate with.")
    if index.task == "findings":
        table = FindingPredictions.from_probabilities(index, np.zeros((len(places), len(index.classes))), places)
        few = {name: Known.of(table.of_finding(name), name).too_few for name in index.classes}
        if all(few.values()):
            most = max(index.classes, key=lambda name: Known.of(table.of_finding(name), name).patients_with)
            raise DataError(
                f"Validation of {index.name} has too few patients to calibrate any finding, {most} the most: "
                f"{few[most]}. Allowed: more films, or a larger --validation-share."
            )
        return
    rows = Predictions(index.rows, index.classes).of("validation").rows
    patients = rows.groupby("label").size().reindex(list(index.classes), fill_value=0)
    if (patients < FEWEST_PATIENTS).any():
        counted = ", ".join(f"{name} {count}" for name, count in patients.items())
        raise DataError(
            f"Validation of {index.name} has too few images to calibrate: {counted}; {FEWEST_PATIENTS} of each class "
            "are needed. Allowed: more films, or a larger --validation-share."
        )
