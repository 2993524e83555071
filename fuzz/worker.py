"""The process that runs cases and reports on standard output: ``python -m fuzz.worker TARGET SEED CASES SECONDS``."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from chestxray.errors import ChestXrayError

#: Bytes beyond what the process has at its start, at which the system refuses more.
_ADDRESSES = 8_000_000_000
#: PR_SET_PDEATHSIG of <sys/prctl.h>.
_END_WITH_PARENT = 1


def main() -> None:
    """Prepare the target, then run a case a seed until the time or the cases are used up."""
    # Whoever runs us may be ended by a signal: nobody would read the reports then, nor end a case that hangs.
    ctypes.CDLL(None, use_errno=True).prctl(_END_WITH_PARENT, signal.SIGKILL)
    target, first, cases, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    # What the libraries print is no report.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # What the tests make hostile files with.
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    module, _, name = target.partition(":")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, contextlib.ExitStack() as stack:
        os.chdir(folder)
        try:
            case = getattr(importlib.import_module(module), name)(Path(folder), stack)
        except BaseException:
            print(json.dumps({"failed": traceback.format_exc()}), file=reports)
            reports.flush()
            os._exit(1)
        _limit()
        print(json.dumps({"ready": True}), file=reports)
        until = time.monotonic() + seconds
        for seed in range(first, first + cases):
            if time.monotonic() > until:
                break
            print(json.dumps({"begin": seed}), file=reports)
            print(json.dumps(_run(case, target, seed)), file=reports)
    print(json.dumps({"end": True}), file=reports)
    reports.flush()
    # Threads of libraries are not waited for.
    os._exit(0)


def _run(case: Any, target: str, seed: int) -> dict[str, Any]:
    before = _resident("VmRSS")
    _forget_peak()
    start = time.process_time()
    trouble = refused = ""
    tried = 1
    try:
        tried = case(random.Random(f"{target}:{seed}")) or 1
    except ChestXrayError as error:
        refused = type(error).__name__
        if len(str(error)) > 20_000:
            trouble = f"a message of {len(str(error)):,} characters"
    except BaseException:
        trouble = traceback.format_exc(limit=-12)
    spent = time.process_time() - start
    return {
        "seed": seed,
        "trouble": trouble,
        "refused": refused,
        "tried": tried,
        "seconds": spent,
        "bytes": _resident("VmHWM") - before,
    }


def _limit() -> None:
    has = _resident("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (has + _ADDRESSES, has + _ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _resident(what: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    return 0


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    main()
