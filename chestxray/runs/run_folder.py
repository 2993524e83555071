"""A run's folder, as docs/run-folder.md describes it: made by `workflow.run`, read by `load_run`."""

from __future__ import annotations

import re
import shutil
import time
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chestxray.data.index import Index
from chestxray.errors import DataError, InputError, OutputError, first_line
from chestxray.evaluation.predictions import Predictions
from chestxray.recipe import Recipe
from chestxray.storage import checksums, result_files
from chestxray.storage.files import explained

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from chestxray.evaluation.decision.rule import Decision
    from chestxray.evaluation.evaluate import Evaluation

RECIPE = "recipe.toml"
INDEX = "index.parquet"
MODEL = "model.keras"
REPORT = "report.html"
HISTORY = "history.csv"
#: What stands beside the recipe wherever a test was evaluated.
EVALUATED = ("predictions.csv", "metrics.json", "environment.json")


@dataclass(frozen=True)
class Run:
    """A run's folder. ``chestxray.load("runs/x").metrics["test"]["auroc"]["value"]``."""

    folder: Path

    @cached_property
    def recipe(self) -> Recipe:
        """Every choice of the run."""
        return Recipe.read(self.folder / RECIPE)

    @cached_property
    def index(self) -> Index:
        """The images, with the split and audit mark of each."""
        return Index.read(self.folder / INDEX)

    @cached_property
    def predictions(self) -> Predictions:
        """The probabilities of the validation and test images."""
        return Predictions.read(self.folder / "predictions.csv")

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row an epoch: phase, epoch, losses, accuracies, learning rate and seconds.

        Raises:
            InputError: nothing was trained in this folder, as in that of an ensemble.
        """
        if not (self.folder / HISTORY).is_file():
            raise InputError(f"{self.folder} has no {HISTORY}: nothing was trained in it.")
        return result_files.history(self.folder / HISTORY)

    @cached_property
    def evaluation(self) -> Evaluation:
        """Every figure of the test, with its interval."""
        from chestxray.evaluation.evaluate import Evaluation

        return Evaluation.from_json(self.metrics)

    @cached_property
    def decision(self) -> Decision:
        """What validation chose: threshold, temperature, when to abstain and what to refuse."""
        from chestxray.evaluation.decision import rule

        return rule.Decision.read(self.folder / rule.FILE)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The contents of ``metrics.json``."""
        return result_files.read(self.folder / "metrics.json")

    @cached_property
    def by_source(self) -> dict[str, Any]:
        """Metrics of each source of the test images; empty where there is only one."""
        return result_files.read_if_any(self.folder / "by_source.json")

    @cached_property
    def controls(self) -> dict[str, Any]:
        """The contents of ``controls.json``; empty where no controls were run."""
        return result_files.read_if_any(self.folder / "controls.json")

    @cached_property
    def audit(self) -> dict[str, Any]:
        """The contents of ``audit.json``; empty where nothing was audited."""
        return result_files.read_if_any(self.folder / "audit.json")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The contents of ``environment.json``."""
        return result_files.read(self.folder / "environment.json")

    @cached_property
    def cam_layer(self) -> tuple[str | None, str]:
        """The layer that Grad-CAM explains; or None, and why there is none.

        Raises:
            DataError: ``heatmaps/index.json`` is damaged.
        """
        path = self.folder / "heatmaps" / "index.json"
        if not path.is_file():
            return None, "The run has no heat maps."
        known = result_files.read(path)
        return known["layer"], known["reason"]

    @property
    def report(self) -> Path:
        """The path of ``report.html``."""
        return self.folder / REPORT

    @cached_property
    def model(self) -> keras.Model:
        """The trained model: raw pixels to probabilities.

        Raises:
            InputError: the folder holds none, as that of an ensemble.
            DataError: it is damaged, or no model of images to classes.
        """
        if not (self.folder / MODEL).is_file():
            raise InputError(f"{self.folder} has no model of its own ({MODEL}), only predictions.")
        path = self.folder / MODEL
        checksums.check(path)
        model = _loaded(path)
        # On a GPU Keras would choose XLA unmeasured.
        model.compile(jit_compile=False)
        return model

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: the report is its last file."""
        return self.report.is_file()


def _loaded(path: Path) -> keras.Model:
    import keras

    try:
        _require_stored(path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        takes, gives = [tensor.shape for tensor in model.inputs], [tensor.shape for tensor in model.outputs]
    except Exception as error:  # Keras, HDF5, ZIP and TensorFlow each have errors of their own for a damaged file
        raise DataError(f"{path} cannot be loaded: {first_line(error)}.") from error
    if [len(shape) for shape in takes] != [4] or [len(shape) for shape in gives] != [2]:
        raise DataError(
            f"{path} cannot be loaded: a model must take one batch of images and give one of probabilities. "
            f"Received: {takes} to {gives}."
        )
    return model


def _require_stored(path: Path) -> None:
    """Raises ValueError where the file would unpack to more than it has: Keras packs without compression."""
    with zipfile.ZipFile(path) as archive:
        total = sum(item.file_size for item in archive.infolist())
    if total > path.stat().st_size:
        raise ValueError(f"it would unpack to {total:,} bytes, more than it has")


def load_run(folder: str | Path) -> Run:
    """Open a finished run's folder.

    Raises:
        InputError: no such folder, no run, or a run that was not finished.
    """
    path = Path(folder)
    if not (path / RECIPE).is_file():
        raise InputError(f"{path} is no run: it must be a folder with {RECIPE} in it, as `chestxray run` makes.")
    if not (path / MODEL).is_file():
        raise InputError(
            f"The run {path} was not finished: {MODEL} is missing. Go on with it: chestxray run --resume {path}"
        )
    return Run(path)


def load_evaluated(folder: str | Path) -> Run:
    """Open a folder that has predictions and metrics, with a model or without: a run, an ensemble, a
    pooled cross-validation, an external evaluation.

    Raises:
        InputError: no such folder, one that was not made by chestxray, or a run that was not finished.
    """
    path = Path(folder)
    if not (path / RECIPE).is_file():
        raise InputError(
            f"{path} is no evaluated folder: it must have {RECIPE} and predictions.csv in it, as `chestxray run` makes."
        )
    if missing := [name for name in EVALUATED if not (path / name).is_file()]:
        raise InputError(
            f"The run {path} was not finished: {missing[0]} is missing. Go on with it: chestxray run --resume {path}"
        )
    return Run(path)


def default_folder(model: str, data: str) -> Path:
    """``runs/<time>-<model>-<data>`` below the working directory."""
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{slug(model, data)}"


def slug(*parts: str) -> str:
    """A short name for a folder from names and addresses, of which the last part is the telling one.

    >>> slug("vgg16", "folder:/a/b/kermany")
    'vgg16-kermany'
    """
    names = [re.split(r"[/\\]", part.rstrip("/\\"))[-1] for part in parts]
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(names)).strip("-.")[:80]


def create(folder: Path, *, overwrite: bool) -> bool:
    """Make the folder of a new run. Returns whether it is new.

    With `overwrite`, an older run stays where it is until `clear` is called.

    Raises:
        OutputError: it exists (and is not to be overwritten, or is no run), or cannot be written.
    """
    if folder.exists():
        if not folder.is_dir():
            raise OutputError(f"The output {folder} is a file; it must be a folder.")
        if not any(folder.iterdir()):
            return False
        if not (folder / RECIPE).is_file():
            raise OutputError(f"The output folder {folder} exists and is no run; choose another with --output.")
        if not overwrite:
            raise OutputError(
                f"The output folder {folder} exists. Allowed: another --output, --overwrite to replace that run, "
                "or --resume to go on with it."
            )
        return False
    with explained(folder):
        try:
            folder.mkdir(parents=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(f"The output folder {folder} cannot be made: a part of its path is a file.") from error
    return True


def clear(folder: Path) -> None:
    """Delete what an older run left in `folder`, once the new one has something to put there."""
    for item in folder.iterdir():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()
