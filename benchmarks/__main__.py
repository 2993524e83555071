"""Runs all benchmarks; prints one table and writes JSON.

    python -m benchmarks [--json FILE] [NAME ...]

Each can also run alone, with more options: ``python -m benchmarks.frozen``. Every benchmark runs in its
own process, so that none warms another's caches or reduces its memory.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import read, show, write

NAMES = (
    "bootstrap",
    "start",
    "decoding",
    "pipeline",
    "gradcam",
    "map_methods",
    "bulk",
    "frozen",
    "probe",
    "xla",
    "onnx_export",
    "serving",
)


def main() -> int:
    """Run the benchmarks, print one table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        write(importlib.import_module(f"benchmarks.{options.one}").measure(), options.json)
        return 0
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; allowed: {', '.join(NAMES)}")
    rows, failed = [], []
    for name in options.names or NAMES:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "rows.json"
            command = [sys.executable, "-m", "benchmarks", "--one", name, "--json", str(found)]
            ended = subprocess.run(command, check=False, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
            if ended.returncode:
                failed.append(name)
            else:
                rows += read(found)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        write(rows, options.json)
    show(rows)
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
