"""A part of some work, and what became of it.

A part is done by a process of its own, which may be killed and started again: its function must be one that ends
right however often it was begun.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chestxray.errors import ChestXrayError

#: Times that a part is begun again after its worker has died.
RETRIES = 2
#: Asks for all GPUs of a machine.
ALL_GPUS = sys.maxsize
GIB = 2**30
#: Bytes of memory that a training or a prediction usually needs.
MEMORY = 4 * GIB
#: Processors that one training keeps busy; more of them make it little faster.
PROCESSORS = 4


@dataclass(frozen=True)
class Part:
    """A call of ``function``, of a module's top level, with ``arguments`` that can be pickled, as its result can.

    ``name`` stands before each line that its worker logs. ``gpus`` is the number of GPUs it is given, at most those
    of one machine, ``memory`` the bytes that must be free for it, and ``processors`` the number that it keeps busy.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    gpus: int = 0
    memory: int = GIB
    processors: int = PROCESSORS


@dataclass(frozen=True)
class Answer:
    """What a worker answers: the ``value`` of the function, or the ``error`` it raised, a user's mistake, or the
    ``traceback`` of any other exception.
    """

    value: Any = None
    error: ChestXrayError | None = None
    traceback: str = ""


class PartFailed(RuntimeError):
    """A part raised an exception that is a defect of chestxray; the message ends with the worker's traceback."""


@dataclass(frozen=True)
class Outcome:
    """A part that has ended, and its worker's answer."""

    part: Part
    answer: Answer

    def value(self) -> Any:
        """Return the value of the part's function.

        Raises:
            ChestXrayError: the one that it raised; `WorkerError` if its worker died each time.
            PartFailed: it raised any other exception.
        """
        if self.answer.error is not None:
            raise self.answer.error
        if self.answer.traceback:
            raise PartFailed(f"{self.part.name} failed in its worker:\n{self.answer.traceback}")
        return self.answer.value
