"""A run in a notebook: trained or opened, it shows what it found, answers for new images and explains its answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd

from chestxray.api import answers as answering
from chestxray.api.answers import Explanation, Images
from chestxray.api.results import AuditResult, Controls, Environment
from chestxray.errors import DataError, InputError, require
from chestxray.inference.answer import columns
from chestxray.runs import run_folder
from chestxray.storage import result_files

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes

    from chestxray.api.fields import RecipeFields
    from chestxray.data.index import Index
    from chestxray.evaluation.decision.rule import Decision
    from chestxray.evaluation.evaluate import Evaluation
    from chestxray.evaluation.predictions import Predictions
    from chestxray.inference.engine import Engine
    from chestxray.recipe import Recipe
    from chestxray.report.caution import Caution


@dataclass(frozen=True)
class Run:
    """The folder of a run, of an ensemble, of a pooled cross-validation or of an external evaluation.

    Everything is read when it is first asked for. Files that are damaged raise `DataError`.
    """

    folder: Path

    @cached_property
    def _files(self) -> run_folder.Run:
        return run_folder.Run(self.folder)

    @property
    def recipe(self) -> Recipe:
        """Every choice of the run."""
        return self._files.recipe

    @property
    def index(self) -> Index:
        """The images: ``index.rows`` has a row an image, with its split and audit mark."""
        return self._files.index

    @property
    def history(self) -> pd.DataFrame:
        """A row an epoch: phase, epoch, losses, accuracies, learning rate and seconds; no rows where nothing was
        trained in this folder, as in that of an ensemble.
        """
        return self._files.history

    @property
    def predictions(self) -> Predictions:
        """``predictions.rows`` has a row for each image of validation and test: truth, probabilities, decision."""
        return self._files.predictions

    @property
    def evaluation(self) -> Evaluation:
        """Every figure of the test, with its 95% interval."""
        return self._files.evaluation

    @cached_property
    def by_source(self) -> Mapping[str, Evaluation]:
        """The test of each source of the images, by its name; empty where there is only one."""
        return MappingProxyType(_evaluations(self._files.by_source))

    @cached_property
    def by_group(self) -> Mapping[str, Mapping[str, Evaluation]]:
        """The test of each group of images: the recipe's columns ``by``, then the column's values."""
        found = result_files.read_if_any(self.folder / "by_group.json")
        return MappingProxyType({name: MappingProxyType(_evaluations(groups)) for name, groups in found.items()})

    @property
    def decision(self) -> Decision:
        """What validation chose: threshold, temperature, when to abstain and what to refuse."""
        return self._files.decision

    @cached_property
    def controls(self) -> Controls:
        """What cheap models reach that see no lungs; without results where no controls were run."""
        return Controls.from_json(self._files.controls)

    @cached_property
    def audit(self) -> AuditResult:
        """What is wrong with the data.

        Raises:
            InputError: nothing was audited in this folder.
        """
        content = self._files.audit
        if not content:
            raise InputError(f"Nothing was audited in {self.folder}: it has no audit.json.")
        return AuditResult.from_json(content)

    @cached_property
    def environment(self) -> Environment:
        """What it ran on: packages, devices, seconds by step, the data's fingerprint."""
        return Environment.from_json(self._files.environment)

    @cached_property
    def limitations(self) -> tuple[Caution, ...]:
        """What weakens the result, in words: serious ones first."""
        from chestxray.report.limitations import cautions

        return tuple(cautions(self._files))

    @property
    def report(self) -> Path:
        """The path of ``report.html``."""
        return self._files.report

    @property
    def model(self) -> keras.Model:
        """The trained model: raw pixels (n, height, width, channels), 0 to 255, to probabilities (n, classes).

        Raises:
            InputError: the folder holds none, as that of an ensemble.
        """
        return self._files.model

    @cached_property
    def engine(self) -> Engine:
        """The model ready to answer."""
        from chestxray.inference import keras_engine

        return keras_engine.load_engine(self.folder)

    def predict(self, images: Images, *, batch_size: int = 32) -> pd.DataFrame:
        """The answers for `images`, a row each, decided as `chestxray predict` does.

        Args:
            images: a path or a list of paths (PNG, JPEG, TIFF, BMP, DICOM); an array (n, height, width) or
                (height, width) of grey pixels, uint8 or uint16, of any size; a table with the column path.
            batch_size: images computed at once.

        Returns:
            path (of arrays the number), decision, ``probability_<class>`` for each class, set, abstained,
            refused, distance and unreadable; missing is what the run does not do or what there is none of.

        Raises:
            InputError: something else than images, or none. A file that cannot be read is no error: its row
                says why.
        """
        given = [answer for found, *_ in self._answers(images, batch_size, maps=False) for answer in found]
        classes = self.engine.classes
        return pd.DataFrame([answering.row(answer, classes) for answer in given], columns=columns(classes))

    def explain(self, image: Images) -> Explanation:
        """Where in one image, a path or an array (height, width), its answer comes from.

        Raises:
            InputError: the architecture has no layer to explain by; several images, or none.
            DataError: the image cannot be read.
        """
        # Of many images no more are computed than show that there are many.
        given = list(itertools.islice(self._answers(image, 1, maps=True), 2))
        if len(given) != 1:
            raise InputError("explain takes one image. Received: several.")
        (((answer,), pixels, outputs),) = given
        if outputs is None or outputs.maps is None:
            raise DataError(f"{answer.path} cannot be read: {answer.unreadable}.")
        return Explanation(answer, pixels[0], outputs.maps[0])

    def _answers(self, images: Images, batch_size: int, *, maps: bool) -> Iterator[tuple[list[Any], Any, Any]]:
        from chestxray.inference import keras_engine

        most = keras_engine.max_pixels(self.folder)
        return answering.answers(self.engine, images, batch_size, maps=maps, max_pixels=most)

    def plot_roc(self, ax: Axes | None = None) -> Axes:
        """Draw the ROC curves of the test, with their areas, as in the report.

        Args:
            ax: axes of a figure of yours, for this plot and the others; default: those of a new figure of pyplot.

        Returns:
            The axes that were drawn on.
        """
        return _plots().roc(self._files, ax)

    def plot_calibration(self, ax: Axes | None = None) -> Axes:
        """Draw stated probabilities against what came true in the test, as in the report."""
        return _plots().calibration(self._files, ax)

    def plot_confusion(self, ax: Axes | None = None) -> Axes:
        """Draw the confusion matrix of the test, true classes in rows, as in the report."""
        return _plots().confusion(self._files, ax)

    def plot_history(self, ax: Axes | None = None, *, of: str = "loss") -> Axes:
        """Draw loss, or ``of="accuracy"``, by epoch, as in the report."""
        return _plots().history(self._files, ax, of)

    def _repr_html_(self) -> str:
        """The run for a notebook: data, figures with intervals, what weakens the result, the report."""
        from chestxray.api import displays

        return displays.of_run(self._files, self.limitations, self.report)


def _plots() -> ModuleType:
    require("A figure", "matplotlib")
    from chestxray.api import plots

    return plots


def _evaluations(contents: Mapping[str, Any]) -> dict[str, Evaluation]:
    from chestxray.evaluation.evaluate import Evaluation

    return {name: Evaluation.from_json(content) for name, content in contents.items()}


def run(
    recipe: Recipe | None = None,
    *,
    output: str | Path | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
    **fields: Unpack[RecipeFields],
) -> Run:
    """Train and evaluate a model: ``run(model="densenet121", data="folder:films", epochs=5)``.

    Args:
        recipe: every choice; default: those of `Recipe`.
        output: the run's folder; default: one below ``runs/`` with time, model and data.
        cache: the cache folder; default: ``chestxray.storage.cache.root``.
        overwrite: replace a run that is in `output`.
        fields: fields of `Recipe`, over those of `recipe`. With ``folds`` and no ``fold``, or with
            ``split="source"`` and no source held out, all parts are trained in turn and their tests pooled.

    Raises:
        ChestXrayError: anything that a user can mend. Before training starts nothing is left behind;
            afterwards `chestxray run --resume` goes on with what is done.
    """
    from chestxray.models.startup import require_tensorflow

    require_tensorflow("Training")
    from chestxray import workflow
    from chestxray.recipe import Recipe

    chosen = (recipe or Recipe()).replace(**fields)
    if not chosen.parts:
        return Run(workflow.run(chosen, output=output, cache=cache, overwrite=overwrite).folder)
    from chestxray.studies import cross_validation, study

    made = study.run([chosen], output, cache, overwrite=overwrite, below="runs")
    return Run(cross_validation.pool(made, cache).folder)


def load(folder: str | Path) -> Run:
    """Open the folder of a run, of an ensemble, of a pooled cross-validation or of an external evaluation.

    Raises:
        InputError: no such folder, one that was not made by chestxray, or a run that was not finished.
    """
    return Run(run_folder.open_evaluated(folder).folder)
