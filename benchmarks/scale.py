"""How time and memory of each step grow with images, classes, models, folds and workers; what is above linear.

    python -m benchmarks.scale [--axis images classes ...] [--step audit ...] [--images 1000 4000 16000]

Rows, films and predictions are made: patients with 1 to 12 images, films of 32 pixels with the spectrum of radiographs,
of which 1 in 100 is an edited copy of another, and scores with an AUROC of about .85. Each step at each size runs in a
process of its own, whose peak of memory is that of the step, its libraries and what it is given. Seconds are of the
processor, which hardly depend on other load; of workers, those of the clock too.

The exponent is the slope of log seconds over log size between the two largest sizes, less the fixed seconds that the
two smallest tell: 1 is linear, 2 quadratic. A step of more than 1.15 is marked.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance

from benchmarks.findings_scale import peak
from benchmarks.timing import spent
from chestxray.data import near_duplicates
from chestxray.data.audit import audit, settle
from chestxray.data.decoded import decode
from chestxray.data.index import Index
from chestxray.data.sources import manifest
from chestxray.data.splitting import split
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.paired.comparison import align, compare
from chestxray.evaluation.predictions import Predictions
from chestxray.plugin import SourceOptions
from chestxray.recipe import Recipe
from chestxray.report import html_report
from chestxray.report.figures.pairs import write_contact_sheets
from chestxray.studies import ensembling

SIDE, REPLICATES, LINEAR = 32, 200, 1.15
#: What a step is done with besides the size that grows: images, classes, models.
ROWS, CLASSES, MODELS = 4_000, 4, 3

#: Makes what a step needs in a folder, and returns the step.
_Made = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--step", nargs="+", help="these alone")
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 4_000, 16_000, 64_000])
    chosen = parser.parse_args()
    above = []
    for axis in chosen.axis:
        sizes, steps = AXES[axis]
        for step in steps:
            if chosen.step and step not in chosen.step:
                continue
            found = [measured(axis, step, size) for size in (chosen.images if axis == "images" else sizes)]
            growth = exponent(found)
            told = f"{axis} {step}: exponent {growth:.2f}" + (" ABOVE LINEAR" if growth > LINEAR else "")
            print(told, flush=True)
            above += [told] if growth > LINEAR else []
    print("Above linear:", "; ".join(above) or "nothing")


def measured(axis: str, step: str, size: int) -> dict[str, float]:
    """Return the cost of one step at one size, from a process of its own, and print it."""
    # Forked, so that it need not import everything: nothing was computed here that a thread could still be at.
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(cost(AXES[axis][1][step], size)))
    process.start()
    theirs.close()
    try:
        found = {"size": size, **ours.recv()}
    except EOFError:
        raise SystemExit(f"{axis} {step} {size} ended with an error.") from None
    process.join()
    told = ", ".join(f"{value:g} {name}" for name, value in found.items() if name != "size")
    print(f"{axis} {step} {size:,}: {told}", flush=True)
    return found


def exponent(found: list[dict[str, float]]) -> float:
    """Return the slope between the two largest sizes, less what no images at all would take: the line through the two
    smallest sizes at 0.
    """
    (small, least), (next_, more) = ((row["size"], row["processor_s"]) for row in found[:2])
    fixed = max(least - (more - least) / (next_ - small) * small, 0.0) if len(found) > 2 else 0.0
    few, many = ((row["size"], max(row["processor_s"] - fixed, 0.005)) for row in found[-2:])
    return math.log(many[1] / few[1]) / math.log(many[0] / few[0])


def cost(make: Callable[[Path, int], _Made], size: int) -> dict[str, float]:
    """Return seconds and megabytes of a step of `size`, what it needs made before."""
    os.environ.setdefault("MPLBACKEND", "agg")
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        step = make(Path(folder), size)
        before = peak()
        time = spent(step)
    return {
        "processor_s": round(time.processors, 3), "clock_s": round(time.clock, 3), "peak_mb": peak(),
        "added_mb": peak() - before,
    }  # fmt: skip


def index_of(count: int, classes: int = CLASSES) -> Index:
    """Return an index of `count` made rows, as if decoded, without splits."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(count), rng.integers(1, 13, count))[:count]
    records = (
        {"path": f"/{i:07d}.png", "label": f"class {(p * 7 + 3) % classes}", "patient": f"p{p}"}
        for i, p in enumerate(patient)
    )
    index = Index.from_records(records, name="made", classes=[f"class {c}" for c in range(classes)])
    unique = index.rows["path"]
    facts = {"width": SIDE, "height": SIDE, "format": "PNG", "mode": "L"}
    return index.replace(index.rows.assign(unreadable="", pixel_hash=unique, file_hash=unique, **facts))


def films(count: int) -> np.ndarray:
    """Return made films, uint8 (count, side, side); the last 1 in 100 are the first with another brightness."""
    rng = np.random.default_rng(0)
    down, right = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    amplitude = np.maximum(np.hypot(down, right), 1 / SIDE) ** -1.5
    found = np.empty((count, SIDE, SIDE), np.uint8)
    for start in range(0, count, 2_000):
        noise = rng.normal(size=(min(2_000, count - start), SIDE, SIDE))
        fields = np.fft.irfft2(np.fft.rfft2(noise) * amplitude, s=(SIDE, SIDE))
        fields = (fields - fields.mean((1, 2), keepdims=True)) / fields.std((1, 2), keepdims=True)
        found[start : start + len(noise)] = np.clip(128 + 50 * fields, 0, 255)
    for number in range(count // 100):
        copy = ImageEnhance.Brightness(Image.fromarray(found[number])).enhance(0.9)
        found[count - 1 - number] = np.asarray(copy)
    return found


def scores(index: Index, seed: int) -> Predictions:
    """Return predictions of rows of `index`, by a model of its own `seed`."""
    rows = index.rows[index.rows["split"].isin(("validation", "test"))]
    truth = pd.Categorical(rows["label"], categories=list(index.classes)).codes
    logits = np.random.default_rng(seed).normal(size=(len(rows), len(index.classes)))
    logits[np.arange(len(rows)), truth] += 1.5
    return Predictions.from_probabilities(
        rows, index.classes, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    )


def tested(count: int, classes: int = CLASSES) -> Index:
    """Return an index of which a tenth validates and the rest tests, so that evaluation has `count` rows."""
    index = index_of(count, classes)
    parts = np.where(np.arange(count) % 10 == 0, "validation", "test")
    return index.replace(index.rows.assign(split=parts, audit=""))


def table(folder: Path, count: int) -> _Made:
    rows = index_of(count).rows[["path", "label", "patient"]]
    (folder / "images").mkdir()
    for path in rows["path"]:
        (folder / "images" / path[1:]).touch()
    rows.assign(path="images" + rows["path"]).to_csv(folder / "table.csv", index=False)
    return lambda: manifest.load(str(folder / "table.csv"), SourceOptions(cache=folder / "cache"))


def splitting(folder: Path, count: int) -> _Made:
    index = index_of(count)
    return lambda: split(index, Recipe())


def auditing(folder: Path, count: int) -> _Made:
    found = split(index_of(count), Recipe())
    return lambda: settle(found.index, audit(found.index, found.notes), "stop")


def copies(folder: Path, count: int) -> _Made:
    index, pixels = index_of(count), films(count)
    found: list[Index] = []

    def step() -> None:
        found.append(near_duplicates.mark(index, pixels))
        # Else the search has found nothing and its time would be that of another.
        assert (found[-1].rows["near_group"] != "").sum() > count // 100, "most planted copies were not found"

    return step


def sheets(folder: Path, count: int) -> _Made:
    pixels, index, pairs = films(count), index_of(count), count // 100
    # As `near_duplicates.mark` finds them, whose time is another step's.
    group = np.full(count, "", dtype=object)
    group[:pairs] = group[::-1][:pairs] = [f"copies {number}" for number in range(pairs)]
    columns = {"near_group": group, "near_correlation": np.where(group == "", np.nan, 0.99), "brightness": 128.0}
    marked = index.rows.assign(**columns, look_alike="", look_alike_correlation=np.nan)
    found = split(index.replace(marked), Recipe())
    told = audit(found.index, found.notes)
    return lambda: write_contact_sheets(told, found.index, pixels, folder)


def decoding(folder: Path, count: int, processes: int | None = None) -> _Made:
    index, pixels = index_of(count), films(count)
    for path, film in zip(index.rows["path"], pixels, strict=True):
        Image.fromarray(film).save(folder / path[1:], compress_level=1)
    bare = [{"path": str(folder / row[1:]), "label": label} for row, label in index.rows[["path", "label"]].to_numpy()]
    read = Index.from_records(bare, name="made", classes=index.classes)
    return lambda: decode(read, (SIDE, SIDE), "stretch", folder / "cache", processes=processes)


def evaluating(folder: Path, count: int, classes: int = CLASSES) -> _Made:
    test = scores(tested(count, classes), 0).of("test")
    return lambda: evaluate(test, replicates=REPLICATES)


def comparing(folder: Path, count: int, classes: int = CLASSES, models: int = MODELS) -> _Made:
    index = tested(count, classes)
    tests = {f"model {seed}": scores(index, seed).of("test") for seed in range(models)}
    return lambda: compare(tests, "balanced_accuracy", replicates=REPLICATES)


def averaging(folder: Path, count: int, models: int = MODELS) -> _Made:
    index = tested(count)
    tests = {f"model {seed}": scores(index, seed).of("test") for seed in range(models)}
    return lambda: ensembling._mean(align(tests))


def reporting(folder: Path, count: int) -> _Made:
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    import made_runs

    index = tested(count)
    run = made_runs.write_run(folder / "run", index.classes, index=index)
    return lambda: html_report.write(run)


def folding(folder: Path, folds: int) -> _Made:
    index = index_of(ROWS)
    return lambda: [split(index, Recipe(folds=folds, fold=fold)) for fold in range(folds)]


#: Axis -> sizes and steps.
AXES: dict[str, tuple[list[int], dict[str, Callable[[Path, int], _Made]]]] = {
    "images": (
        [],
        {
            "table": table, "split": splitting, "audit": auditing, "near copies": copies, "contact sheets": sheets,
            "decode": decoding, "evaluation": evaluating, "comparison": comparing, "ensemble": averaging,
            "report": reporting,
        },
    ),
    "classes": (
        [2, 4, 8, 16, 32],
        {
            "evaluation": lambda folder, size: evaluating(folder, ROWS, size),
            "comparison": lambda folder, size: comparing(folder, ROWS, size),
        },
    ),
    "models": (
        [2, 4, 8, 16, 32],
        {
            "comparison": lambda folder, size: comparing(folder, ROWS, models=size),
            "ensemble": lambda folder, size: averaging(folder, ROWS, size),
        },
    ),
    "folds": ([2, 4, 8, 16], {"split": folding}),
    "workers": ([1, 2, 4], {"decode": lambda folder, size: decoding(folder, ROWS, size)}),
}  # fmt: skip


if __name__ == "__main__":
    main()
