"""Sensitivity and false alarms of the controls, on phantoms with and without a planted shortcut.

    python -m benchmarks.controls          # writes benchmarks/controls.md
    python -m benchmarks.controls --images 300 --seeds 20 --output short.md

The shortcut is a marker: a lead letter in the corner that is associated with one class. Every seed is a
different set of phantoms, drawn at 64 pixels with their official split, and a model with simulated
probabilities. Without a marker every leak that fires is a false alarm, since pose, exposure and framing of a
phantom do not depend on its class.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from chestxray.data.decoded import decode, readable
from chestxray.data.index import Index
from chestxray.data.sources.phantom.source import load
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.shortcuts.controls import EXCLUDED, LIMIT, SHARE, controls
from chestxray.plugin import SourceOptions

SIZE = 64
#: Shift of the simulated model's logits towards the truth, for an AUROC of about .95.
SKILL = 1.65
CLASSES = {"2": ",classes=clear+consolidation", "4": ""}
MARKED = (0.0, 0.1, 0.5, 0.9)
IMAGES = (300, 600, 1200)
NAMES = ("border", "file_facts", "blanked_centre", "thumbnail")


def result(options: str, seed: int, cache: Path) -> dict:
    """Return the ``controls.json`` of one data set, with its processor time in seconds."""
    index = load(f"size={SIZE},{options}", SourceOptions(cache=cache, seed=seed))
    decoded = decode(index, (SIZE, SIZE), "stretch", cache, processes=1)
    index = readable(index, decoded, 0.0)
    test = drawn_model(index, seed)
    metrics = evaluate(test, replicates=100, seed=seed).to_json()
    start = time.process_time()
    found = controls(index, decoded.pixels, test, metrics, seed=seed)
    return found | {"seconds": time.process_time() - start}


def drawn_model(index: Index, seed: int) -> Predictions:
    """Return simulated test predictions with `SKILL`, which do not depend on the marker."""
    rows = index.rows[index.rows["split"] == "test"]
    truth = rows["label"].map(index.classes.index).to_numpy()
    logits = np.random.default_rng([seed, 1]).normal(size=(len(rows), len(index.classes)))
    logits[np.arange(len(rows)), truth] += SKILL * np.sqrt(2)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions.from_probabilities(rows, index.classes, probabilities)


def row(classes: str, images: int, marked: float, seeds: int, cache: Path) -> str:
    """Return one line of the table."""
    planted = f",marker={marked}" if marked else ""
    found = [result(f"images={images}{CLASSES[classes]}{planted}", seed, cache) for seed in range(seeds)]
    of = {name: [next(c for c in item["controls"] if c["name"] == name) for item in found] for name in NAMES}
    alarms = [any(c["fires"] for c in item["controls"] if c["kind"] == "leak") for item in found]
    cells = []
    for items in of.values():
        figures = [item["learnt"]["auroc"] if item["learnt"] else item["auroc"] for item in items]
        states = [sum(item["state"] == state for item in items) for state in ("fires", "undecided", "excluded")]
        cells.append(f"{np.mean([figure['value'] for figure in figures]):.2f}: {' / '.join(map(str, states))}")
    seconds = np.mean([item["seconds"] for item in found])
    title = f"{100 * marked:.0f}%" if marked else "none"
    line = f"| {classes} | {images} | {title} | **{sum(alarms)} of {seeds}** | {' | '.join(cells)} | {seconds:.1f} |"
    print(line, flush=True)
    return line


def main() -> None:
    """Run the simulations and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40, help="sets a row")
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES, help="sizes of the sets")
    parser.add_argument("--classes", nargs="+", choices=CLASSES, default=tuple(CLASSES), help="numbers of classes")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        rows = [
            row(classes, images, marked, options.seeds, Path(cache))
            for classes in options.classes
            for images in options.images
            for marked in MARKED
        ]
    asked = (
        f"--seeds {options.seeds} --images {' '.join(map(str, options.images))} --classes {' '.join(options.classes)}"
    )
    text = [
        "# Controls on phantoms with and without a planted marker",
        "",
        f"`python -m benchmarks.controls {asked}`: at {SIZE} pixels, in {(time.perf_counter() - start) / 60:.0f} "
        "minutes. `benchmarks/controls.py` says what is planted. The model that controls are compared with is drawn, "
        "with an AUROC of about .95.",
        "",
        "Alarms: sets in which a leak (border or file facts) fires; without a marker these are false alarms. Then, "
        "of each control, its mean AUROC and in how many sets it fires / cannot be told / is excluded. Of leaks the "
        "AUROC is what could be learnt, cross-fitted over all images (of four classes, for the one that counts); "
        f"one fires where the lower end of its widened interval is above {LIMIT} and is excluded where the 95% "
        f"interval ends below {EXCLUDED}. The others have their AUROC on the test images, and fire or are excluded "
        f"where their share of the model's gain is surely above or below {SHARE:.0%}. Seconds are of one processor.",
        "",
        "| classes | images | marker on | alarms | border | file facts | lungs blanked | thumbnail | seconds |",
        "| ---: | ---: | :--- |" + " ---: |" * 6,
        *rows,
        "",
        f"A marker on 10% of one class lifts the AUROC of whoever reads it to .55 at most, below {EXCLUDED}: excluded "
        "is not that there is none.",
        "",
    ]
    options.output.write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
