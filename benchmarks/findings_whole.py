"""A whole table of findings with drawn films, from `data show` to the written results: seconds and megabytes.

    python -m benchmarks.drawn_films Data_Entry_2017_v2020.csv.gz FOLDER
    python -m benchmarks.findings_whole FOLDER/Data_Entry_2017_v2020.csv.gz [--steps show audit ...] [--layout nih]

Every step is a process of its own, the first with an empty cache; ``CHESTXRAY_CACHE`` says where. The scores that are
evaluated are random. ``evaluate`` has all rows in the test; ``results`` writes what a run writes of its test, a fifth
of the patients, with the folder of each finding. The megabytes are the peak of the largest process of a step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from chestxray.data.decoded import decode, readable
from chestxray.data.index import Index
from chestxray.data.sources import load_index
from chestxray.data.splitting import split
from chestxray.evaluation.decision import finding_selection
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.findings_evaluation import evaluate_findings
from chestxray.recipe import Recipe
from chestxray.runs.finding_results import assess_findings
from chestxray.storage import cache as caches

SIZE = (16, 16)
COMMANDS = {"show": ("data", "show"), "decode again": ("data", "prepare"), "audit": ("data", "audit")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--layout", default="nih")
    parser.add_argument("--steps", nargs="+", choices=[*COMMANDS, *STEPS], default=[*COMMANDS, *STEPS])
    parser.add_argument("--one", choices=STEPS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    recipe = Recipe(
        model="shallow_cnn", data=(f"manifest:{chosen.table.absolute()}",), data_option=(f"layout={chosen.layout}",),
        image_size=SIZE,
    )  # fmt: skip
    if chosen.one:
        STEPS[chosen.one](recipe)
        return
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("CHESTXRAY_CACHE", cache)
        for step in chosen.steps:
            print(json.dumps({"step": step} | measured(command(step, chosen.table, chosen.layout))), flush=True)


def command(step: str, table: Path, layout: str) -> list[str]:
    """Return the command line of a step."""
    if step not in COMMANDS:
        own = ["-m", "benchmarks.findings_whole", str(table), "--layout", layout, "--one", step]
        return [sys.executable, *own]
    of_data = [f"manifest:{table}", "--data-option", f"layout={layout}", "--image-size", str(SIZE[0])]
    return [sys.executable, "-c", "from chestxray.cli.main import main; main()", *COMMANDS[step], *of_data]


def measured(line: list[str]) -> dict[str, float]:
    """Return seconds, of the clock and of the processors, and the peak memory in MB of a command and its children."""
    start = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "s": round(time.perf_counter() - start, 1),
        "processor_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": used.ru_maxrss // 1024,
        "exit": process.returncode,
    }


def whole(recipe: Recipe) -> Index:
    """Return the index of all rows, decoded."""
    root = caches.root(None)
    index = load_index(recipe, root)
    return readable(index, decode(index, SIZE, recipe.fit, root), 1.0)


def of_split(recipe: Recipe) -> Index:
    """Return the index, split."""
    return split(whole(recipe), recipe).index


def evaluate(recipe: Recipe) -> None:
    """Evaluate random scores of all rows."""
    index = whole(recipe)
    evaluate_findings(scored(index.replace(index.rows.assign(split="test"))))


def results(recipe: Recipe) -> None:
    """Write the results of a run whose scores are random."""
    index = of_split(recipe)
    table = scored(index)
    validation, decision = finding_selection.decide(table.of("validation"), recipe)
    test = table.of("test")
    test = test.with_probabilities(decision.calibrated(test.probabilities))
    with tempfile.TemporaryDirectory() as folder:
        assess_findings(
            decision.applied(test), index, recipe, decision, Path(folder), validation=decision.applied(validation)
        )


def scored(index: Index) -> FindingPredictions:
    """Return a random probability of each finding for every row."""
    random = np.random.default_rng(0).random((len(index), len(index.classes)))
    return FindingPredictions.from_probabilities(index, random)


STEPS = {"split": of_split, "evaluate": evaluate, "results": results}

if __name__ == "__main__":
    main()
