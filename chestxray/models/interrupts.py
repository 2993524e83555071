"""Ctrl-C and SIGTERM, taken where they can be taken.

Python runs the handler of a signal between any two of its instructions, also within a callback of C++ or
Cython that cannot pass an exception on: TensorFlow then aborts the process or, while a graph is built, reports an error
of its own in its place, and pandas' reader prints it and goes on, so that a training would not end at all.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from chestxray.errors import Terminated


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


#: The handlers that raise at once -> what they raise; a program with others deals with its signals by itself.
_RAISING: dict[object, type[KeyboardInterrupt]] = {
    signal.default_int_handler: KeyboardInterrupt,
    _terminate: Terminated,
}


@contextmanager
def sigterm_heard() -> Iterator[None]:
    """Within the block SIGTERM, by which schedulers and containers stop a process, raises `Terminated` in the main
    thread instead of ending the process at once. A handler that the program has is left alone.
    """
    main = threading.current_thread() is threading.main_thread()
    ours = main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if ours and signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


#: The check of the block of `deferred` that is running in the main thread, if there is one.
_running: list[Callable[[], None]] = []


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Within the block Ctrl-C, and SIGTERM in `sigterm_heard`, wait: for the next call of what is yielded, or for the
    block's end.

    A second signal does not wait. A block within a block shares its signals and ends nothing. Where the block is not
    run by the main thread, or the program has a handler of its own, nothing is changed.

    Raises:
        KeyboardInterrupt: by the function that is yielded, and at the block's end, if there was a signal (`Terminated`
            for SIGTERM).
    """
    noted: type[KeyboardInterrupt] | None = None

    def check() -> None:
        nonlocal noted
        if noted is not None:
            raised, noted = noted, None
            raise raised

    if _running and threading.current_thread() is threading.main_thread():
        yield _running[-1]
        return
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = {number: handler for number, handler in before.items() if handler in _RAISING}

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        if noted is not None:
            raise noted
        noted = _RAISING[before[signal.Signals(number)]]

    if not ours:
        yield check
        return
    _running.append(check)
    for number in ours:
        signal.signal(number, note)
    try:
        yield check
    finally:
        _running.pop()
        for number, handler in ours.items():
            signal.signal(number, handler)
    check()
