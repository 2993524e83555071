"""`chestxray predict`: predicts image files with a finished run."""

from __future__ import annotations

import itertools
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chestxray.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from chestxray.evaluation.predictions import Predictions
    from chestxray.inference.answer import Adjustment, Answer
    from chestxray.inference.batch_prediction import Batch
    from chestxray.inference.engine import Engine
    from chestxray.inference.output_file import Format, Lines

log = logging.getLogger("chestxray")


@click.command(name="predict")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN|FILE.onnx")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--recursive", is_flag=True, help="Search the folders below a folder too.")
@click.option("--csv", "kinds", flag_value="csv", multiple=True, help="A table [default].")
@click.option("--json", "kinds", flag_value="json", multiple=True, help="One JSON list.")
@click.option("--jsonl", "kinds", flag_value="jsonl", multiple=True, help="A JSON object a line.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File [default: standard output]. CSV and JSONL files that exist are continued.",
)
@click.option("--heatmaps", type=click.Path(path_type=Path), metavar="DIR", help="Write Grad-CAM overlays there.")
@click.option(
    "--abstain",
    type=float,
    metavar="COVERAGE",
    help="Coverage of the conformal sets, by the run's validation; the model abstains where a set is not exactly the "
    "class decided on [default: that of the run].",
)
@click.option(
    "--prevalence",
    type=float,
    metavar="SHARE",
    help="With two classes, the prevalence of the positive one among these patients: probabilities are adjusted to it, "
    "decisions stay [default: that of the run's validation].",
)
@click.option(
    "--estimate-prevalence",
    is_flag=True,
    help="Print how common the classes appear to be in these images, estimated without labels.",
)
@click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images at a time.")
def command(
    run: Path,
    paths: tuple[Path, ...],
    recursive: bool,
    kinds: tuple[str, ...],
    output: Path | None,
    heatmaps: Path | None,
    abstain: float | None,
    prevalence: float | None,
    estimate_prevalence: bool,
    batch_size: int,
) -> None:
    """Predict image files or folders with RUN: the folder of a finished run or of an ensemble, or an ONNX file
    made by `chestxray export`, which needs no TensorFlow.

    \b
        chestxray predict runs/x film.png other.dcm
        chestxray predict runs/x films --recursive --output answers.csv
        chestxray predict model.onnx films --recursive
        chestxray predict runs/x films --jsonl --heatmaps maps --abstain 0.95 > answers.jsonl

    Writes one row per image: calibrated probabilities, the predicted class, or why there is none. An existing
    --output (CSV or JSONL) is continued: only images without a row in it are predicted.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    kind = _kind(kinds, output)
    from chestxray.data.images import listing
    from chestxray.evaluation.decision.conformal_quantile import patients_needed
    from chestxray.inference import opening
    from chestxray.inference.answer import limit_for, validation_of
    from chestxray.inference.output_file import Lines, alone, done

    engine = opening.open_engine(run)
    if heatmaps is not None:
        _check_heatmaps(engine, heatmaps)
    limit = limit_for(run, engine.decision, abstain)
    if limit is not None and limit >= 1:
        level = abstain or engine.decision.coverage
        needed = "" if level is None else f" {patients_needed(level)} patients would be needed."
        log.warning("Validation is too small to promise that coverage: the model abstains from every image.%s", needed)
    adjustment = None if prevalence is None else _prevalence_adjustment(engine, run, prevalence)
    judges = validation_of(run, engine.decision, "estimate-prevalence") if estimate_prevalence else None
    files = listing.listed(paths, recursive=recursive)
    options = ("" if limit is None else f"{limit:.12g}") + ("" if prevalence is None else f" at {prevalence:.12g}")
    mark = opening.fingerprint(run, options)
    lines = Lines(kind, engine.classes, mark, heatmaps=heatmaps is not None)
    with nullcontext() if output is None else alone(output):
        known = set() if output is None else done(output, lines)
        missing = [path for path in files if path not in known]
        if len(missing) < len(files):
            log.info("%d of %d images have a row in %s already.", len(files) - len(missing), len(files), output)
        if not missing:
            log.info("Nothing is left to do.")
            return
        most = opening.max_pixels(run)
        seen: list[np.ndarray] = []
        counts = _predict(
            engine, missing, lines, output, limit, heatmaps, adjustment, seen, batch_size=batch_size, max_pixels=most
        )
    _summarise(counts)
    if judges is not None:
        _estimate(engine, judges, seen)
    if counts["unreadable"] == len(missing) == len(files):
        raise SystemExit(1)


def _predict(
    engine: Engine,
    paths: Sequence[str],
    lines: Lines,
    output: Path | None,
    limit: float | None,
    heatmaps: Path | None,
    adjustment: Adjustment | None,
    seen: list[np.ndarray],
    *,
    batch_size: int,
    max_pixels: int,
) -> Counter[str]:
    """Read, predict and write concurrently; return the number of images by outcome.

    The probabilities (rows, classes) of images accepted as radiographs are appended to `seen`.
    """
    from chestxray.inference import batch_prediction
    from chestxray.inference.answer import answered
    from chestxray.inference.output_file import behind
    from chestxray.inference.overlay_files import write_overlays

    counts: Counter[str] = Counter()
    batches = batch_prediction.predicted(
        engine, paths, batch_size=batch_size, maps=heatmaps is not None, max_pixels=max_pixels
    )
    # The first batch shows whether the weights can be loaded; nothing is written before.
    first = next(batches)
    with _sink(output, lines) as put, _bar(len(paths)) as advance:

        def write(batch: Batch) -> None:
            given = answered(batch.paths, batch.reasons, batch.outputs, engine, limit, adjustment)
            if batch.outputs is not None:
                films = [not answer.refused for answer in given if not answer.unreadable]
                seen.append(batch.outputs.probabilities[films])
            counts.update(map(_outcome, given))
            names: Sequence[str | None] = [None] * len(given)
            if heatmaps is not None:
                names = write_overlays(heatmaps, given, batch)
            put(lines.of(given, names))
            advance(len(given))

        with behind(write) as later:
            for batch in itertools.chain([first], batches):
                later(batch)
    return counts


def _prevalence_adjustment(engine: Engine, run: Path, prevalence: float) -> Adjustment:
    """Return a function that adjusts probabilities to `prevalence`, the proportion (0 to 1) of the positive class."""
    import numpy as np

    from chestxray.evaluation.clinical.prevalence_shift import Known, adjusted
    from chestxray.inference.answer import validation_of

    decision = engine.decision
    if decision.positive is None:
        raise InputError(f"prevalence is for two classes. Received: {prevalence:g}, with {len(decision.classes)}.")
    if not 0 < prevalence < 1:
        raise InputError(f"prevalence must be a share above 0 and below 1. Received: {prevalence:g}.")
    known = Known.of(validation_of(run, decision, "prevalence"))
    if known is None:
        raise InputError(f"The validation of {run} lacks a class, so that its prevalence is not known.")
    after = np.where(np.arange(2) == decision.classes.index(decision.positive), prevalence, 1 - prevalence)
    return lambda probabilities: adjusted(probabilities, known.proportions, after)


def _estimate(engine: Engine, validation: Predictions, seen: list[np.ndarray]) -> None:
    """Print the estimated proportions of the classes among the images in `seen`, and the assumption made."""
    import numpy as np

    from chestxray.cli.output import quoted, table
    from chestxray.evaluation.clinical.prevalence_shift import ASSUMPTION, Known, estimate

    known = Known.of(engine.decision.applied(validation))
    probabilities = np.concatenate([*seen, np.zeros((0, len(engine.classes)))]).astype(np.float64)
    if known is None or len(probabilities) < 2:
        log.warning("How common the classes are is not estimated: validation lacks a class, or there are no images.")
        return
    found = estimate(probabilities, engine.decision.decided(probabilities), np.arange(len(probabilities)), known)
    rows = [
        (
            name,
            f"{known.proportions[number]:.3f}",
            *(quoted(way[number].to_json()) for way in (found.maximisation, found.confusion)),
        )
        for number, name in enumerate(engine.classes)
    ]
    heads = ("class", "validation", "here, by the probabilities (95% interval)", "here, by the decisions")
    table(heads, rows, error=True)
    click.echo(
        f"Shares of the classes among {len(probabilities):,} images, each counted as a patient, without labels. "
        f"{ASSUMPTION} Estimates that disagree say that they are not.",
        err=True,
    )


def _kind(kinds: tuple[str, ...], output: Path | None) -> Format:
    if len(set(kinds)) > 1:
        raise InputError(f"Only one of --csv, --json and --jsonl can be had. Received: --{', --'.join(kinds)}.")
    suffix = "" if output is None else output.suffix.lower().removeprefix(".")
    chosen: Any = kinds[0] if kinds else suffix if suffix in ("csv", "json", "jsonl") else "csv"
    return chosen


def _check_heatmaps(engine: Engine, folder: Path) -> None:
    from chestxray.errors import OutputError
    from chestxray.inference.engine import check_maps

    check_maps(engine)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"--heatmaps must be a folder. Received: the file {folder}.")


@contextmanager
def _sink(output: Path | None, lines: Lines) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes lines to the output; the opening and closing lines are written around them."""
    from chestxray.inference.output_file import appending, whole

    if output is None:
        stream = sys.stdout.buffer

        def put(content: bytes) -> None:
            stream.write(content)
            stream.flush()

        put(lines.opening)
        yield put
        put(lines.closing)
        return
    with whole(output) if lines.kind == "json" else appending(output) as write:
        if lines.kind == "json" or not output.stat().st_size:
            write(lines.opening)
        yield write
        write(lines.closing)


def _outcome(answer: Answer) -> str:
    if answer.unreadable:
        return "unreadable"
    return "refused" if answer.refused else "abstained" if answer.abstained else "decided"


def _summarise(counts: Counter[str]) -> None:
    words = {
        "decided": "decided",
        "abstained": "abstained from",
        "refused": "refused as no chest radiograph",
        "unreadable": "unreadable",
    }
    counted = ", ".join(f"{counts[name]:,} {word}" for name, word in words.items() if counts[name] or name == "decided")
    level = logging.WARNING if counts["unreadable"] else logging.INFO
    log.log(level, "%s: %s.", "1 image" if counts.total() == 1 else f"{counts.total():,} images", counted)
    log.info("Research use only. Not a medical device; not for diagnosis.")


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], Any]]:
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() or not log.isEnabledFor(logging.INFO)
    with tqdm(total=total, desc="Predicting", unit=" images", disable=hidden) as bar:
        yield bar.update
