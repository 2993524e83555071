"""Errors that a user can fix, and nothing else.

    ChestXrayError
     ├─ InputError        an option, a path or an image that cannot be used
     │   ├─ OutputError   a folder that exists already, cannot be written, or is full
     │   └─ MissingPackageError   a package that an extra of chestxray installs, and that is not installed
     ├─ DataError         a data set that cannot be had, read or split
     │   └─ LeakError     the same image or patient on both sides of a split
     ├─ PluginError       a model or source that is unknown, broken or claimed twice
     ├─ WeightsError      weights that cannot be obtained or do not fit
     ├─ ExportError       a model that a format cannot represent, or a file with other outputs than the model
     ├─ TrainingError     training that failed: loss or weights not finite
     ├─ NonFiniteError    a trained network that gives NaN or infinity for an image
     └─ WorkerError       a process that did a part of the work and died each time, or a cluster that is lost

The command line prints the message of a ``ChestXrayError`` on one line and exits with its
``exit_code``. Any other exception is a defect of chestxray and keeps its traceback, but for `Terminated`,
which is no error.
"""

import importlib.util
from collections.abc import Iterable

#: Extra of chestxray -> the modules that it installs.
EXTRAS = {
    "train": (
        "tensorflow",
        "keras",
        "datasets",
        "h5py",
        "huggingface_hub",
        "kagglehub",
        "safetensors",
        "tensorflow_datasets",
        "tf_keras_vis",
    ),
    "jax": ("jax",),
    "report": ("matplotlib", "pyarrow"),
    "serve": ("flask", "gunicorn", "prometheus_client", "waitress"),
    "export": ("ai_edge_litert", "onnx", "tf2onnx"),
    "dicom": ("pydicom", "pylibjpeg"),
    "dicom-output": ("highdicom",),
    "excel": ("openpyxl",),
    "cluster": ("ray",),
    "remote": ("fsspec", "s3fs"),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}

#: Most characters of a line of a message.
LONGEST_LINE = 4000


def _bounded(line: str) -> str:
    half = (LONGEST_LINE - 5) // 2
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - half - 5]} ... {line[-half:]}"


class ChestXrayError(Exception):
    """Root of the errors that a user can fix. The message says what is wrong, what is allowed and
    what was received; a table may follow on further lines. The middle of a line longer than
    `LONGEST_LINE` characters is left out.

    >>> len(str(InputError("a" * 100_000 + ".")))
    4000
    """

    exit_code = 2

    def __str__(self) -> str:
        return "\n".join(map(_bounded, super().__str__().split("\n")))


class InputError(ChestXrayError):
    """An option, a path or an image that cannot be used."""


class OutputError(InputError):
    """A folder or file that cannot be written."""


class MissingPackageError(InputError):
    """A package that an extra of chestxray installs, and that is not installed."""


class DataError(ChestXrayError):
    """A data set that cannot be obtained, read or split."""


class LeakError(DataError):
    """The same image or patient on both sides of a split."""


class PluginError(ChestXrayError):
    """A model or source that is unknown, broken or claimed by two distributions."""


class WeightsError(ChestXrayError):
    """Weights that cannot be obtained or do not fit the architecture."""


class ExportError(ChestXrayError):
    """A model that a format cannot represent, or an exported file whose outputs differ from the
    model's. Not the fault of the input, hence exit code 1.
    """

    exit_code = 1


class TrainingError(ChestXrayError):
    """Training that failed. Not the fault of the input, hence exit code 1."""

    exit_code = 1


class NonFiniteError(ChestXrayError):
    """A network that gives NaN or infinity for an image. Not the fault of the input, hence exit code 1."""

    exit_code = 1


class WorkerError(ChestXrayError):
    """A process that did a part of the work and died each time, or a cluster that cannot be reached. Not the fault of
    the input, hence exit code 1.
    """

    exit_code = 1


class Terminated(KeyboardInterrupt):
    """SIGTERM, within `chestxray.models.interrupts.sigterm_heard`: what Ctrl-C ends, it ends with another code."""


def require(what: str, *modules: str) -> None:
    """Raises `MissingPackageError` unless all `modules`, of one extra, are installed; imports none of them.

    >>> require("Counting", "no_such_module")
    Traceback (most recent call last):
    ...
    chestxray.errors.MissingPackageError: Counting needs no_such_module: pip install no_such_module
    """
    if absent := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise MissingPackageError(f"{what} needs {', '.join(absent)}: pip install {_requirement(absent[0])}")


def missing_package(error: ModuleNotFoundError, what: str) -> MissingPackageError | None:
    """What to say of an import that failed because `what` needs an extra that is not installed; None where the import
    failed for another reason.

    >>> print(missing_package(ModuleNotFoundError("No module named 'flask_'", name="flask_"), "serve"))
    None
    """
    name = (error.name or "").partition(".")[0]
    if not any(name in modules for modules in EXTRAS.values()) or importlib.util.find_spec(name) is not None:
        return None
    return MissingPackageError(f"{what} needs {name}: pip install {_requirement(name)}")


def _requirement(module: str) -> str:
    return next((f"'chestxray[{extra}]'" for extra, modules in EXTRAS.items() if module in modules), module)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error message, without its full stop and at most 300 characters
    long, or the name of the exception's class if the message is empty.

    >>> first_line(ValueError("no ZIP.")), first_line(EOFError())
    ('no ZIP', 'EOFError')
    """
    lines = str(error).strip().splitlines() or [""]
    first = lines[0].strip().rstrip(".:")
    return (first if len(first) <= 300 else f"{first[:297]}...") or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean a or b?`` for the (at most three) known names closest to `name`, or ``""`` if none is.

    >>> nearest("inceptionv4", ["inceptionv3", "vgg16"])
    ' Did you mean inceptionv3?'
    """
    import difflib

    by_case = {item.lower(): item for item in sorted(known)}
    close = [by_case[match] for match in difflib.get_close_matches(name.lower(), by_case, n=3, cutoff=0.5)]
    return f" Did you mean {' or '.join(close)}?" if close else ""
