"""What parts of tests do, in processes of their own."""

import logging
import os
import signal
import subprocess
import sys
import time

from chestxray.errors import InputError

log = logging.getLogger("chestxray.tests")


def double(number):
    log.info("doubling %d", number)
    log.debug("not to be seen")
    print("printed by a library")
    return 2 * number, os.getpid()


def refuse():
    raise InputError("This cannot be used.")


def fail():
    return 1 / 0


def visible():
    return os.environ["CUDA_VISIBLE_DEVICES"]


def killed_until(folder, times):
    """Die by SIGKILL this many times, then return how often this was called."""
    folder.mkdir(exist_ok=True)
    count = len(list(folder.iterdir())) + 1
    (folder / str(count)).touch()
    if count <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def sleep(folder):
    """Start a process that sleeps, sleep as well, and write who they are; say whether it ends by Ctrl-C."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "own").write_text(str(os.getpid()))
    (folder / "child").write_text(str(child.pid))
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        raise
