"""Runs for notebooks: train or open a run, read its results, predict new images and explain predictions."""

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
from chestxray.recipe import GRADCAM
from chestxray.runs import run_folder
from chestxray.storage import remote, result_files

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes

    from chestxray.api.fields import RecipeFields
    from chestxray.data.index import Index, Task
    from chestxray.evaluation.decision.finding_rule import FindingDecision
    from chestxray.evaluation.decision.rule import Decision
    from chestxray.evaluation.evaluate import Evaluation
    from chestxray.evaluation.finding_predictions import FindingPredictions
    from chestxray.evaluation.findings_evaluation import FindingsEvaluation
    from chestxray.evaluation.predictions import Predictions
    from chestxray.inference.engine import Engine
    from chestxray.recipe import Recipe
    from chestxray.report.caution import Caution


@dataclass(frozen=True)
class Run:
    """The folder of a run, an ensemble, a pooled cross-validation or an external evaluation.

    Files are read on first access. Damaged files raise `DataError`.
    """

    folder: Path

    @cached_property
    def _files(self) -> run_folder.Run:
        return run_folder.Run(self.folder)

    @property
    def recipe(self) -> Recipe:
        """The recipe, with every setting of the run."""
        return self._files.recipe

    @property
    def index(self) -> Index:
        """The images: ``index.rows`` has one row per image, with its split and audit mark."""
        return self._files.index

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch: phase, epoch, losses, accuracies, learning rate and seconds; no rows if the folder holds
        no training, like that of an ensemble.
        """
        return self._files.history

    @property
    def predictions(self) -> Predictions:
        """``predictions.rows`` has one row per validation or test image: truth, probabilities, decision."""
        return self._files.predictions

    @property
    def evaluation(self) -> Evaluation:
        """All figures on the test images, with their 95% intervals."""
        return self._files.evaluation

    @property
    def task(self) -> Task:
        """``classes`` or ``findings``. With findings, `predictions`, `evaluation`, `decision` and the plots but for
        `plot_history` are those of one of `findings`; on this run they raise `InputError`.
        """
        return self._files.task

    @cached_property
    def findings(self) -> Mapping[str, Run]:
        """With findings, each one that is scored as a run of two classes, absent and present; otherwise empty."""
        return MappingProxyType({name: Run(run.folder) for name, run in self._files.findings.items()})

    @property
    def findings_evaluation(self) -> FindingsEvaluation:
        """With findings, the figures of each and their means on the test images, with their 95% intervals."""
        return self._files.findings_evaluation

    @property
    def finding_predictions(self) -> FindingPredictions:
        """With findings, ``finding_predictions.rows`` has one row per validation or test image."""
        return self._files.finding_predictions

    @property
    def finding_decision(self) -> FindingDecision:
        """With findings, the decision rule of each, chosen on validation images."""
        return self._files.finding_decision

    @cached_property
    def by_source(self) -> Mapping[str, Evaluation]:
        """The evaluation of each source of the test images, by source name; empty if there is only one source."""
        return MappingProxyType(_evaluations(self._files.by_source))

    @cached_property
    def by_group(self) -> Mapping[str, Mapping[str, Evaluation]]:
        """The evaluation of each group of test images, by column (``by`` in the recipe) and then by value."""
        found = result_files.read_if_any(self.folder / "by_group.json")
        return MappingProxyType({name: MappingProxyType(_evaluations(groups)) for name, groups in found.items()})

    @property
    def decision(self) -> Decision:
        """The decision rule chosen on validation images: threshold, temperature, abstention and refusal."""
        return self._files.decision

    @cached_property
    def controls(self) -> Controls:
        """The results of the controls, cheap models that see little or nothing of the lungs; empty if none were run."""
        return Controls.from_json(self._files.controls)

    @cached_property
    def audit(self) -> AuditResult:
        """The defects that the audit found in the data.

        Raises:
            InputError: the folder has no audit.
        """
        content = self._files.audit
        if not content:
            raise InputError(f"Nothing was audited in {self.folder}: it has no audit.json.")
        return AuditResult.from_json(content)

    @cached_property
    def environment(self) -> Environment:
        """The environment: packages, devices, seconds by step, fingerprint of the data."""
        return Environment.from_json(self._files.environment)

    @cached_property
    def limitations(self) -> tuple[Caution, ...]:
        """The limitations of the result in words, the serious ones first."""
        from chestxray.report import published_model
        from chestxray.report.limitations import cautions

        if self._files.published:
            return (published_model.caution(self._files),)
        return tuple(cautions(self._files))

    @property
    def report(self) -> Path:
        """The path of ``report.html``."""
        return self._files.report

    @property
    def model(self) -> keras.Model:
        """The trained model: from raw pixels (n, height, width, channels) in 0..255 to probabilities (n, classes).

        Raises:
            InputError: the folder holds no model, like that of an ensemble.
        """
        return self._files.model

    @cached_property
    def engine(self) -> Engine:
        """The model, loaded for prediction."""
        from chestxray.inference import keras_engine

        return keras_engine.load_engine(self.folder)

    def predict(self, images: Images, *, batch_size: int = 32) -> pd.DataFrame:
        """Return a table with one row per image, with the decisions of `chestxray predict`.

        Args:
            images: a path or a list of paths (PNG, JPEG, TIFF, BMP, DICOM); an array (n, height, width) or
                (height, width) of grey pixels, uint8 or uint16, of any size; a table with the column path.
            batch_size: number of images computed at once.

        Returns:
            The columns path (for arrays the image's number), decision, ``probability_<class>`` for each class, set,
            abstained, refused, distance and unreadable. With findings: path, ``probability_<finding>`` and
            ``predicted_<finding>`` (1 or 0) for each finding, abstained (a list of findings), refused, distance and
            unreadable. A value is missing if the run does not provide it or it does not apply.

        Raises:
            InputError: `images` are not images or are empty. A file that cannot be read is not an error: its row
                gives the reason.
        """
        given = [answer for found, *_ in self._answers(images, batch_size, maps=False) for answer in found]
        rule = self.engine.decision
        return pd.DataFrame([answer.cells(rule.classes) for answer in given], columns=columns(rule))

    def features(self, *, cache: str | Path | None = None, **fields: Unpack[RecipeFields]) -> pd.DataFrame:
        """Return what the network makes of each image before its last layer: ``run.features(data="folder:films")``.

        Args:
            cache: the cache folder; default: ``chestxray.storage.cache.root``.
            fields: ``data``, and fields that say which of its images; default: the run's own images, with its splits.

        Returns:
            The table of `chestxray features`: ``features`` is an array, float32 (width,), for each image, None where
            ``unreadable`` says why the file cannot be read.

        Raises:
            InputError: the folder holds no model, or a field has no influence on features.
            DataError: the data cannot be read.
        """
        from chestxray.inference import feature_table
        from chestxray.models.startup import require_tensorflow
        from chestxray.storage import cache as caches

        require_tensorflow("A Keras model")
        return feature_table.of_run(self.folder, dict(fields), caches.root(cache)).frame()

    def explain(
        self, image: Images, label: str | None = None, *, method: str = GRADCAM, layer: str | None = None
    ) -> Explanation:
        """Return a heat map of one image, a path or an array (height, width), with the answer it belongs to.

        Args:
            image: a path, or an array as `predict` takes it.
            label: the class or finding that is explained; default: the class decided on, the most probable finding.
            method: one that `chestxray explain` has, or the name of a plugin's. An ensemble has gradcam alone: the
                mean of its members' maps, each as a share of its model's scale.
            layer: the layer of feature maps; default: that of the architecture.

        Raises:
            InputError: the method needs a layer and there is none, there is not exactly one image, or no such method,
                class, finding.
            PluginError: no such layer.
            DataError: the image cannot be read.
        """
        from chestxray.inference import explaining
        from chestxray.inference.keras_engine import KerasEngine

        for name, given_as in {"method": method, "layer": layer, "label": label}.items():
            if not isinstance(given_as, str) and (name == "method" or given_as is not None):
                raise InputError(f"{name} must be a name, as text. Received: {given_as!r}.")
        engine, wanted = self.engine, explaining.TOP if label is None else label
        explaining.check_name(engine, wanted, several=False)
        if isinstance(engine, KerasEngine):
            layer = None if layer == engine.layer else layer  # the maps at the run's own layer are those it checked
            explaining.check(engine, (method,), wanted, layer)
        elif method != GRADCAM or layer is not None:
            raise InputError("An ensemble has maps of gradcam at its members' own layers. Explain one of its members.")
        # At most two images are computed, which is enough to detect several.
        given = list(itertools.islice(self._answers(image, 1, maps=False), 2))
        if len(given) != 1:
            raise InputError("explain takes one image. Received: several.")
        (((answer,), pixels, outputs),) = given
        if outputs is None:
            raise DataError(f"{answer.path} cannot be read: {answer.unreadable}.")
        if isinstance(engine, KerasEngine):
            (found,) = explaining.maps_of_read(
                engine, [answer], pixels, outputs.probabilities, (method,), wanted, layer
            )
        else:
            found = explaining.of_ensemble(engine, answer, pixels, outputs.probabilities, wanted)
        return Explanation(answer, pixels[0], found.raw, found.name, method, *self._shown(method, layer))

    def _shown(self, method: str, layer: str | None) -> tuple[float | None, str, str]:
        """Return the end of the scale of the maps by `method`, None where there is none, their badge and its words."""
        from chestxray.inference import run_heat_maps
        from chestxray.inference.keras_engine import KerasEngine

        if layer is not None:
            return None, "not checked", f"The maps at the layer {layer} were not checked."
        if not isinstance(self.engine, KerasEngine):
            known = self.engine.heat_maps
            assert known is not None, "it has a map"
            return known.highest, known.badge, known.sentence
        known = run_heat_maps.of_run(self._files, method)
        return None if known is None else known.highest, *run_heat_maps.judged(self._files, method)

    def _answers(self, images: Images, batch_size: int, *, maps: bool) -> Iterator[tuple[list[Any], Any, Any]]:
        from chestxray.inference import keras_engine

        most = keras_engine.max_pixels(self.folder)
        return answering.answers(self.engine, images, batch_size, maps=maps, max_pixels=most)

    def plot_roc(self, ax: Axes | None = None) -> Axes:
        """Draw the ROC curves of the test, with their areas, as in the report.

        Args:
            ax: the axes to draw on, as in the other plots; default: those of a new pyplot figure.

        Returns:
            The axes, as in the other plots.
        """
        return _plots().roc(self._files, ax)

    def plot_calibration(self, ax: Axes | None = None) -> Axes:
        """Draw the reliability diagram of the test, as in the report."""
        return _plots().calibration(self._files, ax)

    def plot_confusion(self, ax: Axes | None = None) -> Axes:
        """Draw the confusion matrix of the test, true classes in rows, as in the report."""
        return _plots().confusion(self._files, ax)

    def plot_history(self, ax: Axes | None = None, *, of: str = "loss") -> Axes:
        """Draw the loss by epoch, or with ``of`` the ``"accuracy"`` or, of ``monitor="auroc"``, the ``"auroc"``."""
        return _plots().history(self._files, ax, of)

    def _repr_html_(self) -> str:
        """Return data, figures with intervals, limitations and a link to the report as HTML for a notebook."""
        from chestxray.api import displays

        if self._files.published:
            return displays.of_published(self._files)
        if self.task == "findings":
            return displays.of_findings(self._files, self.report)
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
        recipe: all settings; default: those of `Recipe`.
        output: the run's folder, or an address such as ``s3://bucket/folder``; default: a new one below ``runs/``,
            named by time, model and data.
        cache: the cache folder; default: ``chestxray.storage.cache.root``.
        overwrite: replace an existing run in `output`.
        fields: fields of `Recipe`, which override those of `recipe`. With ``folds`` and no ``fold``, or with
            ``split="source"`` and no source held out, all parts are trained in turn and their tests pooled.

    Raises:
        ChestXrayError: any error that a user can correct. Before training starts no files are left behind;
            afterwards `chestxray run --resume` continues the run.
    """
    from chestxray.models.startup import require_backend

    require_backend("Training")
    from chestxray import workflow
    from chestxray.recipe import Recipe

    chosen = (recipe or Recipe()).replace(**fields)
    with remote.at(output) as place:
        if not chosen.parts:
            return Run(workflow.run(chosen, output=place, cache=cache, overwrite=overwrite).folder)
        from chestxray.studies import cross_validation, study

        made = study.run([chosen], place, cache, overwrite=overwrite, below="runs")
        return Run(cross_validation.pool(made, cache).folder)


def load(folder: str | Path) -> Run:
    """Open the folder of a run, an ensemble, a pooled cross-validation or an external evaluation. Of an address such as
    ``s3://bucket/folder``, a copy in the cache is opened. A ready model is opened by its name, such as
    ``torchxrayvision:densenet121-res224-all``: it predicts and explains, and has no data, predictions or figures.

    Raises:
        InputError: the folder does not exist, was not made by chestxray, or holds an unfinished run; no such ready
            model.
        WeightsError: the weights of a ready model cannot be had.
    """
    from chestxray.inference import ready_names

    if ready_names.is_name(folder):
        from chestxray.inference import ready_models

        return Run(ready_models.folder_of(str(folder)))
    return Run(run_folder.open_evaluated(remote.opened(folder), task=None).folder)
