"""Exports a finished run to one file for other programs: ONNX, LiteRT, SavedModel or Keras.

The written file is loaded and its outputs are compared with those of the run's model.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chestxray.errors import InputError, OutputError, nearest, require
from chestxray.evaluation.decision.rule import FILE as DECISION
from chestxray.models import startup
from chestxray.runs import run_folder
from chestxray.runs.run_folder import MODEL, RECIPE, Run
from chestxray.storage import cache as caches
from chestxray.storage.files import explained, replacing

if TYPE_CHECKING:
    from chestxray.export.quantisation import Quantised
    from chestxray.export.verification import Checked

#: Format -> name of its file below ``export/`` in the run's folder.
FORMATS = {"onnx": "model.onnx", "litert": "model.tflite", "savedmodel": "savedmodel", "keras": "model.keras"}
#: The same of a quantised file.
INT8 = "model.int8.onnx"
#: Format -> modules that it needs in addition to TensorFlow.
_PACKAGES = {"onnx": ("tf2onnx", "onnx"), "litert": ("ai_edge_litert",)}


@dataclass(frozen=True)
class Exported:
    """An exported file: its ``path`` (of a SavedModel: the folder), the names of its ``outputs``, ``notes`` on missing
    outputs, the result of its verification ``checked``, and its size in ``megabytes``; ``quantised``: what 8-bit
    integers cost and give, None of a file in float32.
    """

    path: Path
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    checked: Checked
    megabytes: float
    quantised: Quantised | None = None


def export(
    folder: str | Path,
    form: str,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    int8: bool = False,
    force: bool = False,
    cache: str | Path | None = None,
) -> Exported:
    """Export the run in `folder` as `form`, one of `FORMATS`, to `output` (default: in its ``export/``; of a ready
    model in the current folder).

    With `int8`, of ONNX alone, the file computes in 8-bit integers (`quantisation`): it is calibrated on the run's
    training images and tested on its test images, which `cache` may hold, and `force` keeps it whatever it loses.

    Raises:
        InputError: `folder` is not a run, has no weights or decision rule, or cuts images to their lungs; an unknown
            format; a package that is not installed.
        OutputError: `output` exists and may not be overwritten, or cannot be written.
        ExportError: the architecture cannot be converted, the outputs of the file differ from the model's, or its
            AUROC in `int8` is too low; no file is left then.
    """
    if form not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}.{nearest(form, FORMATS)} Received: {form!r}.")
    if int8 and form != "onnx":
        raise InputError(f"int8 is for the format onnx. Received: {form}.")
    if force and not int8:
        raise InputError("force is for int8, whose loss of AUROC it allows.")
    startup.require_tensorflow("An export")
    run = _load(Path(folder))
    if run.recipe.crop != "none":
        raise InputError(
            f"{run.folder} takes images that are cut to their {run.recipe.crop}, which no exported file can do: it has "
            "the network alone. Allowed: chestxray predict and chestxray serve with the run itself, or the export of a "
            "run with --crop none."
        )
    file = INT8 if int8 else FORMATS[form]
    path = output or (Path(f"{run.folder.name}-{file}") if run.published else run.folder / "export" / file)
    _check_output(path, form, overwrite)
    _check_packages(form)
    startup.start()
    from chestxray.export import formats, verification
    from chestxray.export.source_run import SourceRun

    subject = SourceRun.of(run, form)
    quantised = None
    with _replacing(path, form) as temporary:
        if int8:
            from chestxray.export import quantisation

            quantised = quantisation.quantise(subject, temporary, caches.root(cache), force=force)
        else:
            formats.WRITERS[form](subject, temporary)
        checked = verification.check(subject, temporary, exact=not int8)
        size = sum(file.stat().st_size for file in [temporary, *temporary.rglob("*")] if file.is_file())
    return Exported(path, subject.outputs, subject.notes, checked, size / 1e6, quantised)


def _load(folder: Path) -> Run:
    if (folder / RECIPE).is_file() and not (folder / MODEL).is_file() and (folder / "predictions.csv").is_file():
        raise InputError(
            f"{folder} holds predictions and no weights ({MODEL}). Export the run that made them; of an ensemble, "
            "each member."
        )
    run = run_folder.open_trained(folder, task=None)
    if not (folder / DECISION).is_file():
        raise InputError(f"{folder} has no {DECISION}: run it again with this version of chestxray.")
    return run


def _check_output(path: Path, form: str, overwrite: bool) -> None:
    if form == "keras" and path.suffix != ".keras":
        raise InputError(f"output of the format keras must end with .keras. Received: {path}.")
    if not path.exists():
        return
    if path.is_dir() and not (form == "savedmodel" and (path / "saved_model.pb").is_file()):
        raise OutputError(f"The output {path} is a folder with other content; choose another with --output.")
    if not overwrite:
        raise OutputError(f"The output {path} exists. Allowed: another --output, or --overwrite to replace it.")


def _check_packages(form: str) -> None:
    require(f"The format {form}", *_PACKAGES.get(form, ()))


@contextmanager
def _replacing(path: Path, form: str) -> Iterator[Path]:
    """As `files.replacing`, also for the folder of a SavedModel."""
    if form != "savedmodel":
        with replacing(path) as temporary:
            yield temporary
        return
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as aside:
            yield Path(aside) / path.name
            if path.exists():
                shutil.rmtree(path)
            (Path(aside) / path.name).rename(path)
