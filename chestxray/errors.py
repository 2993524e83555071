"""Errors that a user can fix, and nothing else.

    ChestXrayError
     ├─ InputError        an option, a path or an image that cannot be used
     │   └─ OutputError   a folder that exists already, cannot be written, or is full
     ├─ DataError         a data set that cannot be had, read or split
     │   └─ LeakError     the same image or patient on both sides of a split
     ├─ PluginError       a model or source that is unknown, broken or claimed twice
     ├─ WeightsError      weights that cannot be obtained or do not fit
     ├─ ExportError       a model that a format cannot represent, or a file with other outputs than the model
     └─ TrainingError     training that failed: loss or weights not finite

The command line prints the message of a ``ChestXrayError`` on one line and exits with its
``exit_code``. Any other exception is a defect of chestxray and keeps its traceback.
"""

from collections.abc import Iterable

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
