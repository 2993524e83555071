"""What a part costs, and what workers gain: in this process, in local workers, on a Ray cluster of this machine.

    python -m benchmarks.workers [--executors local ray] [--seeds 4] [--workers 2]

An empty part shows the cost of a process; a study of small trainings is made in this process, by one worker and by
several. Not one of ``python -m benchmarks``, since Ray is in an extra of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chestxray.execution.executor import chosen
from chestxray.execution.parts import Part

STUDY = """
import sys
from chestxray.execution.executor import chosen
from chestxray.recipe import Recipe
from chestxray.studies import study
executor, workers, seeds, folder, cache = sys.argv[1:]
recipe = Recipe(model="shallow_cnn", data=("phantom",), data_option=("patients=200",), image_size=64, epochs=10,
                replicates=100, heatmaps=0, controls=False, refuse=0)
study.run([recipe], folder, cache, seeds=int(seeds), executor=chosen(executor or None, int(workers) or None))
"""


def nothing() -> None:
    """A part that has nothing to do."""


def empty(executor: str, count: int = 5) -> float:
    """Return the seconds of an empty part, one after the other, without the start of a cluster."""
    parts = [Part(str(i), nothing, memory=1) for i in range(count + 1)]
    outcomes = chosen(executor, 1).run(parts)
    next(outcomes).value()
    start = time.perf_counter()
    for outcome in outcomes:
        outcome.value()
    return (time.perf_counter() - start) / count


def study(executor: str, workers: int, seeds: int, cache: Path) -> float:
    """Return the seconds of a study in a process of its own, which is started for it."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        given = [executor, str(workers), str(seeds), folder + "/study", str(cache)]
        subprocess.run([sys.executable, "-c", STUDY, *given], check=True)
        return time.perf_counter() - start


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executors", nargs="+", default=["local"], choices=["local", "ray"])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    for executor in options.executors:
        print(f"an empty part, {executor}: {empty(executor):.2f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        study("", 0, 1, cache)  # draws and decodes the images
        plain = study("", 0, options.seeds, cache)
        print(f"{options.seeds} trainings in one process: {plain:.1f} s", flush=True)
        for executor in options.executors:
            for workers in (1, options.workers):
                seconds = study(executor, workers, options.seeds, cache)
                print(f"{options.seeds} trainings, {executor}, {workers} at a time: {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
