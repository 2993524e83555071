"""A run's folder, as docs/run-folder.md describes it: made by `workflow.run`, read by `load`."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chestxray.errors import DataError, InputError, OutputError
from chestxray.files import explained
from chestxray.index import Index
from chestxray.prediction import Predictions
from chestxray.recipe import Recipe

if TYPE_CHECKING:
    import keras

RECIPE = "recipe.toml"
INDEX = "index.parquet"
MODEL = "model.keras"
REPORT = "report.html"
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
    def metrics(self) -> dict[str, Any]:
        """The contents of ``metrics.json``."""
        return json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))

    @cached_property
    def by_source(self) -> dict[str, Any]:
        """Metrics of each source of the test images; empty where there is only one."""
        path = self.folder / "by_source.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @cached_property
    def controls(self) -> dict[str, Any]:
        """The contents of ``controls.json``; empty where no controls were run."""
        path = self.folder / "controls.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The contents of ``environment.json``."""
        return json.loads((self.folder / "environment.json").read_text(encoding="utf-8"))

    @cached_property
    def cam_layer(self) -> tuple[str | None, str]:
        """The layer that Grad-CAM explains; or None, and why there is none.

        Raises:
            DataError: ``heatmaps/index.json`` is damaged.
        """
        path = self.folder / "heatmaps" / "index.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            return known["layer"], known["reason"]
        except FileNotFoundError:
            return None, "The run has no heat maps."
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged: {error}.") from error

    @property
    def report(self) -> Path:
        """The path of ``report.html``."""
        return self.folder / REPORT

    @cached_property
    def model(self) -> keras.Model:
        """The trained model: raw pixels to probabilities.

        Raises:
            InputError: the folder holds none, as that of an ensemble.
        """
        if not (self.folder / MODEL).is_file():
            raise InputError(f"{self.folder} has no model of its own ({MODEL}), only predictions.")
        import keras

        model = keras.saving.load_model(self.folder / MODEL, compile=False, safe_mode=True)
        # On a GPU Keras would choose XLA unmeasured.
        model.compile(jit_compile=False)
        return model

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: the report is its last file."""
        return self.report.is_file()


def load(folder: str | Path) -> Run:
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
