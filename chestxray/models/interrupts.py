"""Ctrl-C, taken where it can be taken.

Python raises `KeyboardInterrupt` between any two of its instructions, also within a callback of C++ or
Cython that cannot pass it on: TensorFlow then aborts the process, and pandas' reader prints it and
goes on, so that a training would not end at all.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Within the block Ctrl-C waits: for the next call of what is yielded, or for the block's end.

    A second Ctrl-C does not wait. Where the block is not run by the main thread, or the program has a
    handler of its own, nothing is changed.

    Raises:
        KeyboardInterrupt: by the function that is yielded, and at the block's end, if it was pressed.
    """
    pressed = False

    def check() -> None:
        nonlocal pressed
        if pressed:
            pressed = False
            raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield check
        return

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    check()
