"""Split and audit of large indices of findings, without pixels: seconds, megabytes, and how they grow.

    python -m benchmarks.findings_scale [--rows 1000 28030 112120 377110]

The rows are those of the whole table of NIH ChestX-ray14 where CHESTXRAY_REAL_DATA has it (112,120 rows, 14 findings,
30,805 patients); other numbers are made: patients with 1 to 12 images and findings of 0.2% to 20%. The exponent is that
of the seconds of processor over the number of rows: 1 is linear, 2 quadratic; below 10,000 rows fixed costs hide it. Of
the audit, what needs pixels is left out. ``write`` and ``read`` are of the index on disk.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.timing import spent
from chestxray.data.audit import audit, settle
from chestxray.data.findings import columns
from chestxray.data.index import Index
from chestxray.data.splitting import split
from chestxray.recipe import Recipe

TABLE = "nih-1000/Data_Entry_2017_v2020.csv.gz"
REAL = 112_120
NAMES = tuple(f"Finding {number}" for number in range(1, 15))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 28_030, 112_120, 377_110])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(cost(chosen.one)))
        return
    found = []
    for count in chosen.rows:
        # One process each, since the recorded peak memory of a process never falls.
        command = [sys.executable, "-m", "benchmarks.findings_scale", "--one", str(count)]
        found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(json.dumps(found[-1]), flush=True)
    for step in ("split", "folds", "audit", "write", "read"):
        for few, many in itertools.pairwise(found):
            growth = math.log(max(many[step]["processor_s"], 0.01) / max(few[step]["processor_s"], 0.01)) / math.log(
                many["rows"] / few["rows"]
            )
            print(f"{step}: exponent {growth:.2f} from {few['rows']:,} to {many['rows']:,} rows")


def cost(count: int) -> dict:
    """Return the seconds of each step on `count` rows, and the megabytes above those of the index."""
    table = Path(os.environ.get("CHESTXRAY_REAL_DATA", "")) / TABLE
    real = count == REAL and table.is_file()
    index = of_table(table) if real else made(count)
    before = peak()
    result: dict = {"rows": count, "patients": index.rows["patient"].nunique(), "real": real, "index_mb": before}
    steps: dict[str, Callable[[], object]] = {
        "split": lambda: split(index, Recipe()),
        "folds": lambda: split(index, Recipe(folds=5, fold=0)),
    }
    for name, step in steps.items():
        result[name] = seconds(step)
    splits = split(index, Recipe())
    result["audit"] = seconds(lambda: settle(splits.index, audit(splits.index, splits.notes), "stop"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "index.csv"
        result["write"] = seconds(lambda: splits.index.write(file))
        result["read"] = seconds(lambda: Index.read(file))
    return result | {"peak_mb": peak()}


def seconds(step: Callable[[], object]) -> dict[str, float]:
    """Return the seconds of the clock and of the processors."""
    found = spent(step)
    return {"s": round(found.clock, 2), "processor_s": round(found.processors, 2)}


def peak() -> int:
    """Return the highest resident memory so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def of_table(path: Path) -> Index:
    """Return the index of NIH's table, as if decoded, without images."""
    table = pd.read_csv(path)
    states = table["Finding Labels"].str.get_dummies("|").drop(columns="No Finding")
    rows = pd.DataFrame({"path": "/" + table["Image Index"], "patient": table["Patient ID"].astype(str)})
    rows = rows.assign(width=table.iloc[:, 7], height=table.iloc[:, 8])
    return as_decoded(rows, states.to_numpy(), tuple(states))


def made(count: int) -> Index:
    """Return an index of `count` rows that are made."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(count), rng.integers(1, 13, count))[:count]
    prevalence = np.geomspace(max(0.002, 30 / count), 0.2, len(NAMES))
    # Half of what a patient has is in each image, so that findings of a patient go together.
    states = (rng.random((count, len(NAMES))) < 2 * prevalence)[patient] & (rng.random((count, len(NAMES))) < 0.5)
    rows = pd.DataFrame({"path": [f"/{number:07d}.png" for number in range(count)], "patient": patient.astype(str)})
    rows = rows.assign(width=rng.integers(1_500, 3_500, count), height=rng.integers(1_500, 3_500, count))
    return as_decoded(rows, states.astype(np.int8), NAMES)


def as_decoded(rows: pd.DataFrame, states: np.ndarray, names: tuple[str, ...]) -> Index:
    rows = rows.assign(unreadable="", pixel_hash=rows["path"], file_hash=rows["path"], format="PNG", mode="L")
    found = pd.DataFrame(states, columns=columns(names)).astype(np.int8)
    return Index.from_findings(pd.concat([rows, found], axis=1), names, name="large")


if __name__ == "__main__":
    main()
