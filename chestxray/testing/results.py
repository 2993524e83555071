"""The result of a check, and the loop that runs a suite of checks."""

from __future__ import annotations

import sysconfig
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chestxray.errors import ChestXrayError, InputError, nearest

#: Folders of libraries that call a plugin's code; the plugin itself may be installed beside them.
_LIBRARIES = frozenset({"keras", "tensorflow", "tf_keras_vis", "numpy"})


class CheckFailed(Exception):
    """A plugin fails a check: the reason, and a hint for its author."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class CheckSkipped(Exception):
    """A check cannot be run or does not apply. The message is the reason."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check: one row of the table. A skipped check neither passed nor failed."""

    name: str
    passed: bool
    seconds: float
    reason: str = ""
    hint: str = ""
    skipped_reason: str = ""

    @property
    def outcome(self) -> str:
        """``passed``, ``failed`` or ``skipped``."""
        return "passed" if self.passed else "skipped" if self.skipped_reason else "failed"


@dataclass(frozen=True)
class Check:
    """A function of the subject under test, and the checks (``needs``) that must pass before it runs."""

    run: Callable[[Any], None]
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The function's name without its prefix: ``cam_layer`` for ``check_cam_layer``."""
        return self.run.__name__.removeprefix("check_")

    @property
    def asks(self) -> str:
        """What the check tests, in one line: the first line of the function's docstring."""
        return (self.run.__doc__ or "").partition("\n")[0]


def chosen(checks: Sequence[Check], only: Collection[str] | None) -> list[Check]:
    """Return the checks named in `only`, in the order of the suite; None: all checks.

    Raises:
        InputError: the suite has no check of that name.
    """
    names = [check.name for check in checks]
    for name in only or ():
        if name not in names:
            raise InputError(f"Unknown check {name!r}.{nearest(name, names)} Allowed: {', '.join(names)}.")
    return [check for check in checks if only is None or check.name in only]


def run_all(checks: Sequence[Check], subject: Any, before: Callable[[str], None] | None = None) -> list[CheckResult]:
    """Run `checks` in order and return their results.

    A check that needs another one that did not pass is skipped, with that as the reason. `before` is called with
    the name of each check before it runs.
    """
    results: dict[str, CheckResult] = {}
    for check in checks:
        if before:
            before(check.name)
        missing = [name for name in check.needs if name in results and not results[name].passed]
        if missing:
            reason = f"needs {', '.join(missing)}, which did not pass"
            results[check.name] = CheckResult(check.name, False, 0.0, skipped_reason=reason)
        else:
            results[check.name] = _run_one(check, subject)
    return list(results.values())


def _run_one(check: Check, subject: Any) -> CheckResult:
    start = time.perf_counter()
    reason, hint, skipped = "", "", ""
    try:
        check.run(subject)
    except CheckFailed as failure:
        reason, hint = failure.reason, failure.hint
    except CheckSkipped as skip:
        skipped = str(skip)
    # Third-party code may raise anything: the exception is a result, and the next check runs.
    except Exception as error:
        reason, hint = described(error), place(error)
    seconds = round(time.perf_counter() - start, 3)
    return CheckResult(check.name, not (reason or skipped), seconds, reason, hint, skipped)


def described(error: BaseException, limit: int = 400) -> str:
    """Return an exception's message as one line, truncated after `limit` characters."""
    text = " ".join(str(error).split())
    text = text if len(text) <= limit else f"{text[:limit]} ..."
    return text if isinstance(error, ChestXrayError) else f"{type(error).__name__}: {text}"


def place(error: BaseException) -> str:
    """Return where an exception was raised: the innermost line outside chestxray and the known libraries."""
    ours = (Path(__file__).parents[1], Path(sysconfig.get_path("stdlib")) / "functools.py")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not _LIBRARIES.intersection(path.parts) and not any(path.is_relative_to(own) for own in ours):
            return f"raised at {frame.filename}:{frame.lineno}, in {frame.name}"
    return ""
