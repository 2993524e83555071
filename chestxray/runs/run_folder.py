"""Reading a run's folder, which `workflow.run` writes and docs/run-folder.md describes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import pandas as pd

from chestxray.data.index import SPLITS, Index, Patients, Task
from chestxray.errors import DataError, InputError, first_line
from chestxray.evaluation.predictions import Predictions
from chestxray.models import lung_segmenter, startup
from chestxray.models.lung_segmenter import LungSegmenter
from chestxray.recipe import GRADCAM, Recipe
from chestxray.storage import checksums, result_files, schema
from chestxray.storage.result_forms import SomeMetrics

if TYPE_CHECKING:
    import keras

    from chestxray.evaluation.decision.finding_rule import FindingDecision
    from chestxray.evaluation.decision.rule import Decision
    from chestxray.evaluation.evaluate import Evaluation
    from chestxray.evaluation.finding_predictions import FindingPredictions
    from chestxray.evaluation.findings_evaluation import FindingsEvaluation

RECIPE = "recipe.toml"
INDEX = "index.parquet"
MODEL = "model.keras"
REPORT = "report.html"
HISTORY = "history.csv"
PREDICTIONS = "predictions.csv"
METRICS = "metrics.json"
ENVIRONMENT = "environment.json"
HEATMAPS = "heatmaps/index.json"
MAP_CHECKS = "heatmaps/checks.json"


@dataclass(frozen=True)
class Run:
    """A run's folder. ``chestxray.load("runs/x").metrics["test"]["auroc"]["value"]``."""

    folder: Path

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe: every choice of the run."""
        return Recipe.read(self.folder / RECIPE)

    @cached_property
    def index(self) -> Index:
        """The images, with the split and audit mark of each."""
        return Index.read(self.folder / INDEX)

    @cached_property
    def task(self) -> Task:
        """Whether the run is of classes or of findings; what follows speaks of classes where it does not say so."""
        # A ready model has no figures.
        known = METRICS if (self.folder / METRICS).is_file() else "decision.json"
        return "findings" if result_files.read_if_any(self.folder / known).get("task") == "findings" else "classes"

    @property
    def published(self) -> str:
        """The name of a ready model, which its publisher trained, so that there are no images, predictions or figures
        in the folder; ``""`` for a run.
        """
        if (self.folder / INDEX).is_file():
            return ""  # a test of one
        return str(self.environment.get("model", {}).get("published_head", {}).get("name", ""))

    @property
    def calibrated_from(self) -> str:
        """The ready model or run whose network was calibrated here and not trained; ``""`` for others."""
        return str(self.environment.get("model", {}).get("calibrated_from", ""))

    @cached_property
    def predictions(self) -> Predictions:
        """The probabilities of the validation and test images. Raises `InputError` for a run of findings, as do
        `evaluation` and `decision`.
        """
        self._require_classes()
        return Predictions.read(self.folder / PREDICTIONS)

    def _require_classes(self) -> None:
        if self.task == "findings":
            raise InputError(_of_findings(self.folder))

    @cached_property
    def findings(self) -> Mapping[str, Run]:
        """With findings, the run of two classes, absent and present, of each one that is scored; otherwise empty."""
        places = self.folder.glob(f"findings/*/{RECIPE}") if self.task == "findings" else ()
        runs = [Run(place.parent) for place in places]
        return {str(run.positive): run for run in sorted(runs, key=lambda run: str(run.positive))}

    @cached_property
    def finding_predictions(self) -> FindingPredictions:
        """With findings, the probabilities of the validation and test images."""
        from chestxray.evaluation.finding_predictions import FindingPredictions

        return FindingPredictions.read(self.folder / PREDICTIONS)

    @cached_property
    def findings_evaluation(self) -> FindingsEvaluation:
        """With findings, every figure of the test, with its confidence interval."""
        from chestxray.evaluation.findings_evaluation import FindingsEvaluation

        return FindingsEvaluation.from_json(self.metrics)

    @cached_property
    def finding_decision(self) -> FindingDecision:
        """With findings, what was chosen on validation for each."""
        from chestxray.evaluation.decision import finding_rule, rule

        return finding_rule.FindingDecision.read(self.folder / rule.FILE)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch: phase, epoch, losses, accuracies, learning rate and seconds; no rows if nothing
        was trained in this folder, as for an ensemble.
        """
        path = self.folder / HISTORY
        return result_files.history(path) if path.is_file() else pd.DataFrame(columns=["phase", "epoch"])

    @cached_property
    def evaluation(self) -> Evaluation:
        """Every figure of the test, with its confidence interval."""
        from chestxray.evaluation.evaluate import Evaluation

        self._require_classes()
        return Evaluation.from_json(self.metrics)

    @cached_property
    def decision(self) -> Decision:
        """What was chosen on validation: threshold, temperature, when to abstain and what to refuse."""
        from chestxray.evaluation.decision import rule

        self._require_classes()
        return rule.Decision.read(self.folder / rule.FILE)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The contents of ``metrics.json``."""
        return result_files.read(self.folder / METRICS)

    @cached_property
    def by_source(self) -> dict[str, Any]:
        """Metrics for each source of the test images; empty if there is only one source."""
        return result_files.read_if_any(self.folder / "by_source.json")

    @cached_property
    def controls(self) -> dict[str, Any]:
        """The contents of ``controls.json``; empty if no controls were run."""
        return result_files.read_if_any(self.folder / "controls.json")

    @cached_property
    def audit(self) -> dict[str, Any]:
        """The contents of ``audit.json``; empty if nothing was audited."""
        return result_files.read_if_any(self.folder / "audit.json")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The contents of ``environment.json``; empty if it is missing."""
        return result_files.read_if_any(self.folder / ENVIRONMENT)

    @cached_property
    def segmenter(self) -> LungSegmenter | None:
        """What the run's images were cut to their lungs by, installed or not; None where they are whole.

        Raises:
            DataError: ``environment.json`` does not say it.
        """
        if self.recipe.crop == "none":
            return None
        for record in self.environment.get("methods", []):
            if record["kind"] == lung_segmenter.KIND:
                return LungSegmenter.of_record(record)
        raise DataError(
            f"{self.folder} is damaged: its images were cut to their lungs, and {ENVIRONMENT} does not say by what."
        )

    @property
    def finding(self) -> str | None:
        """Of a run of findings, the one that this folder is of; None for a run of its own."""
        return self.environment.get("finding")

    @cached_property
    def cam_layer(self) -> tuple[str | None, str]:
        """The layer that Grad-CAM explains, None if there is none; and why there are no heat maps.

        Raises:
            DataError: ``heatmaps/index.json`` is damaged.
        """
        if not self.heatmaps:
            return None, "The run has no heat maps."
        layer, reason = self.heatmaps["layer"], self.heatmaps["reason"]
        # The method of a plugin has drawn maps of an architecture that Grad-CAM cannot explain.
        return layer, reason if layer or reason else "This architecture has no convolutional layer to explain."

    @property
    def report(self) -> Path:
        """The path of ``report.html``."""
        return self.folder / REPORT

    @cached_property
    def model(self) -> keras.Model:
        """The trained model, from raw pixels (images, height, width, channels) to probabilities (images, classes).

        Raises:
            InputError: the folder holds none, as that of an ensemble; TensorFlow is not installed.
            DataError: it is damaged, or no model of images to classes.
        """
        if not self.has_model:
            raise InputError(f"{self.folder} has no model of its own ({MODEL}), only predictions.")
        startup.require_tensorflow("A Keras model")
        path = self.folder / MODEL
        checksums.check(path)
        model = _loaded(path)
        # On a GPU, Keras would choose XLA without measuring whether it is faster.
        model.compile(jit_compile=False)
        return model

    @property
    def finished(self) -> bool:
        """Whether the run is complete: the report is its last file."""
        return self.report.is_file()

    @property
    def has_model(self) -> bool:
        """Whether the folder holds trained weights."""
        return (self.folder / MODEL).is_file()

    @property
    def has_only_predictions(self) -> bool:
        """Whether the folder has predictions but no weights, as for an ensemble, an external test or one finding."""
        return is_run(self.folder) and not self.has_model and (self.folder / PREDICTIONS).is_file()

    @cached_property
    def heatmaps(self) -> dict[str, Any]:
        """The contents of ``heatmaps/index.json``; empty if there are no heat maps."""
        return result_files.read_if_any(self.folder / HEATMAPS)

    def map_scale(self, method: str) -> dict[str, Any] | None:
        """Return the scale of a method's maps of test images: ``highest``, its end, in ``unit``, among ``images`` maps;
        None where the run states none.
        """
        panel = self.heatmaps
        if panel.get("method") == method and "scale" in panel:
            return {**panel["scale"], "images": len(panel["images"])}
        found: dict[str, Any] | None = panel.get("gradcam") if method == GRADCAM else None
        return found

    @cached_property
    def map_checks(self) -> dict[str, dict[str, Any]]:
        """What ``heatmaps/checks.json`` says of each method whose heat maps were checked, by the method's name."""
        found = result_files.read_if_any(self.folder / MAP_CHECKS)
        return {one["method"]: one for one in found.get("methods", [])}

    @cached_property
    def extras(self) -> dict[str, Any]:
        """The contents of the JSON files in the folder that only some runs have, by name without suffix."""
        own = {"environment", "audit", "metrics", "checksums"}
        return {p.stem: result_files.read(p) for p in sorted(self.folder.glob("*.json")) if p.stem not in own}

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, or findings, in the order of the model's outputs."""
        return self.index.classes if self.task == "findings" else self.predictions.classes

    @property
    def positive(self) -> str | None:
        """Of two classes, the positive one, which sensitivity refers to."""
        return self.metrics.get("positive")

    @property
    def is_ensemble(self) -> bool:
        """Whether the predictions are means over several models, here or, of a finding's folder, in that of its run."""
        return "ensemble" in self.extras or self.recipe.model == "ensemble"

    @property
    def level(self) -> str:
        """The confidence level of the intervals as text, such as ``95%``."""
        return f"{100 * self.metrics.get('interval', {}).get('level', 0.95):g}%"

    @property
    def data_name(self) -> str:
        """The name of the data set."""
        return self.environment.get("data", {}).get("name") or self.index.name

    @property
    def notes(self) -> list[str]:
        """The run's notes on its data, in sentences."""
        return list(self.audit.get("notes", []))

    @property
    def split_note(self) -> str:
        """The note that says how the split was drawn, ``""`` if none was drawn."""
        return next((note for note in self.notes if note.startswith("Split ")), "")

    @cached_property
    def external(self) -> Mapping[str, Any]:
        """The contents of ``metrics.json`` of each evaluation on other data in ``external/``, by name."""
        found = sorted(self.folder.glob("external/*/metrics.json"))
        return {path.parent.name: schema.read(path, SomeMetrics) for path in found}

    @cached_property
    def external_audits(self) -> Mapping[str, Any]:
        """The contents of ``audit.json`` of the same evaluations, by name."""
        return {path.parent.name: result_files.read(path) for path in sorted(self.folder.glob("external/*/audit.json"))}

    @property
    def drawn(self) -> int:
        """The number of images that were drawn by a program, not taken of a person."""
        return int(self.index.drawn.sum())

    @cached_property
    def used(self) -> pd.DataFrame:
        """The rows of the index that are in a split."""
        return self.index.rows[self.index.rows["split"].isin(SPLITS)]

    @cached_property
    def counts(self) -> pd.DataFrame:
        """The number of images by class (rows) and split (columns)."""
        table = pd.crosstab(self.used["label"], self.used["split"])
        return table.reindex(index=list(self.index.classes), columns=list(SPLITS), fill_value=0)

    def patients(self, **wanted: str) -> Patients:
        """Return the number of patients in `used`, or in its rows with the given ``label=`` or ``split=``."""
        rows = self.used
        for column, value in wanted.items():
            rows = rows[rows[column] == value]
        return Patients.of(rows)

    @cached_property
    def _root(self) -> str:
        try:
            return os.path.commonpath([str(PurePath(path).parent) for path in self.index.rows["path"]])
        except ValueError:  # paths on two drives, or a relative one among absolute ones
            return ""

    def short(self, path: str) -> str:
        """Return `path` relative to the data's common folder, so that it is short and shows no home folder."""
        below = PurePath(path).is_relative_to(self._root) if self._root else False
        return PurePath(path).relative_to(self._root).as_posix() if below else path

    def shorten_in(self, text: str) -> str:
        """Return `text` with the data's common folder removed from the paths."""
        return text.replace(self._root.rstrip(os.sep) + os.sep, "") if self._root.strip(os.sep) else text


def _loaded(path: Path) -> keras.Model:
    import keras

    try:
        _require_stored(path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        takes, gives = [tensor.shape for tensor in model.inputs], [tensor.shape for tensor in model.outputs]
    except Exception as error:  # Keras, HDF5, ZIP and TensorFlow each raise their own errors for a damaged file
        raise DataError(f"{path} cannot be loaded: {first_line(error)}.") from error
    if [len(shape) for shape in takes] != [4] or [len(shape) for shape in gives] != [2]:
        raise DataError(
            f"{path} cannot be loaded: a model must take one batch of images and give one of probabilities. "
            f"Received: {takes} to {gives}."
        )
    return model


def _require_stored(path: Path) -> None:
    """Raise ValueError if the file would unpack to more bytes than it has: Keras packs without compression."""
    with zipfile.ZipFile(path) as archive:
        total = sum(item.file_size for item in archive.infolist())
    if total > path.stat().st_size:
        raise ValueError(f"it would unpack to {total:,} bytes, more than it has")


def is_run(folder: Path) -> bool:
    """Return whether chestxray made `folder`, finished or not: the recipe is the first file of a run."""
    return (folder / RECIPE).is_file()


def open_findings(folder: str | Path) -> Run:
    """Open the folder of a finished run of findings.

    Raises:
        InputError: no such folder, not a run, one that was not finished, or one of classes.
    """
    run = _opened(folder, (INDEX, PREDICTIONS, METRICS), f"{RECIPE} and {PREDICTIONS} in it", task=None)
    if run.task != "findings":
        raise InputError(f"{run.folder} is a run of one class an image, not of findings.")
    return run


def open_trained(folder: str | Path, *, task: Task | None = "classes") -> Run:
    """Open the folder of a run whose training is finished. `task` None opens one of findings as well.

    Raises:
        InputError: no such folder, not a run, a run that was not finished, or one of another task.
    """
    return _opened(folder, (MODEL,), f"{RECIPE} in it", task=task)


def open_evaluated(folder: str | Path, *, task: Task | None = "classes") -> Run:
    """Open a folder that has predictions and metrics, with or without a model: a run, an ensemble, a
    pooled cross-validation, an external evaluation. `task` None opens one of findings as well.

    Raises:
        InputError: no such folder, a folder that was not made by chestxray, a run that was not finished, or one of
            another task.
    """
    return _opened(folder, (PREDICTIONS, METRICS, ENVIRONMENT), f"{RECIPE} and {PREDICTIONS} in it", task=task)


def require_evaluated(run: Run) -> None:
    """Raise `InputError` where the `run`, of any task, has a model and was not finished: a report that is written into
    it would be taken for its last file, and the run for a finished one.
    """
    _opened(run.folder, (PREDICTIONS, METRICS, ENVIRONMENT), f"{RECIPE} and {PREDICTIONS} in it", task=None)


def open_complete(folder: str | Path) -> Run:
    """Open an evaluated folder and read all files that a report needs, so that damage is found before anything
    is written.

    Raises:
        InputError: as `open_evaluated`, or the index is missing.
        DataError: a file is damaged, or two files have different classes.
    """
    run = _opened(folder, (INDEX, PREDICTIONS, METRICS), f"{RECIPE} and {PREDICTIONS} in it")
    _ = run.recipe, run.environment, run.audit, run.history, run.heatmaps, run.extras
    of = {PREDICTIONS: run.classes, METRICS: run.metrics["confusion"]["classes"]}
    for name, classes in of.items():
        if set(classes) != set(run.index.classes):
            raise DataError(
                f"{folder} is damaged: its files are of different classes. {INDEX}: "
                f"{', '.join(run.index.classes)}. {name}: {', '.join(classes)}."
            )
    return run


def _opened(folder: str | Path, needed: Sequence[str], described: str, *, task: Task | None = "classes") -> Run:
    """Open a run of the `task`, None for any."""
    path = Path(folder)
    if not is_run(path):
        raise InputError(f"{path} is not a run: it must be a folder with {described}, as `chestxray run` makes.")
    if missing := [name for name in needed if not (path / name).is_file()]:
        if missing[0] == MODEL and Run(path).has_only_predictions:
            raise InputError(
                f"{path} holds predictions and no weights ({MODEL}), and this takes a run with its model. What needs "
                "predictions alone takes it: chestxray compare."
            )
        raise InputError(
            f"The run {path} was not finished: {missing[0]} is missing. Continue it: chestxray run --resume {path}"
        )
    if task == "classes" and Run(path).task == "findings":
        raise InputError(_of_findings(path, model=MODEL in needed))
    return Run(path)


def _of_findings(folder: Path, *, model: bool = False) -> str:
    """Return the message for what takes a run of classes alone, or with `model` one whose model answers in classes."""
    if model:
        return (
            f"{folder} is a run of findings, and this takes a model of one class an image. The model itself, from "
            f"pixels to a probability of each finding, is {folder / MODEL}, for Keras."
        )
    first = next(iter(sorted(folder.glob(f"findings/*/{RECIPE}"))), folder / "findings" / "NAME" / RECIPE).parent
    return (
        f"{folder} is a run of findings, and this takes one of classes. The predictions of each finding are a run of "
        f"two classes, absent and present: {first}."
    )
