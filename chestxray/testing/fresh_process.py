"""A separate process for checks that cannot be made in this one.

In it the plugin has not been imported yet, a saved model must load without the plugin, and TensorFlow can
still be configured to split the CPU into two devices. The process answers several questions, since
starting TensorFlow takes longer than any of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from types import TracebackType
from typing import Any

from chestxray.testing.results import CheckFailed

SECONDS = 600.0


class FreshProcess:
    """A process that starts at the first question (or by `start`), and again after it died.

    >>> with FreshProcess() as process:
    ...     process.ask("importing", module="json")["error"]
    ''
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = tuple(preload)
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._reader = ThreadPoolExecutor(1)

    def __enter__(self) -> FreshProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._reader.shutdown()
        self._errors.close()

    def start(self) -> None:
        """Start the process and its imports of the modules to preload, without waiting for them."""
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
                [sys.executable, "-P", "-m", "chestxray.testing.process_steps", *self._preload],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=_environment(),
            )

    def ask(self, step: str, *, seconds: float = SECONDS, **arguments: Any) -> dict[str, Any]:
        """Run a function of `chestxray.testing.process_steps` in the process and return its result.

        Raises:
            CheckFailed: the function took longer than `seconds`, or the process died.
        """
        self.start()
        assert self._process and self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"step": step, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._reader.submit(self._process.stdout.readline).result(seconds)
        except TookTooLong as error:
            self._stop()
            raise CheckFailed(f"took longer than {seconds:g} s in a process of its own") from error
        except BrokenPipeError:
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self._process.wait()
        self._stop()
        raise CheckFailed(f"the process that tried it died (exit code {code})", self._last_error())

    def _stop(self) -> None:
        if self._process is not None:
            # Killed rather than asked to end: it may still be busy with the step that took too long.
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "out of memory?"


def _environment() -> dict[str, str]:
    # The same search path as here: the plugin may be in a folder that only this process has added.
    path = os.pathsep.join(entry or os.curdir for entry in sys.path)
    changes = {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    # The caller's choice to turn warnings into errors is meant for the caller's code only.
    return {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"} | changes
