"""`chestxray predict`: predicts image files with a finished run."""

from __future__ import annotations

import itertools
import logging
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chestxray.cli import shares
from chestxray.cli.options import execution_options
from chestxray.cli.places import READ_MODEL
from chestxray.cli.shares import by_finding
from chestxray.errors import InputError
from chestxray.execution.executor import chosen
from chestxray.progress.bars import progress

if TYPE_CHECKING:
    import numpy as np

    from chestxray.evaluation.decision.finding_rule import Rule
    from chestxray.inference.answer import Adjustment
    from chestxray.inference.batch_prediction import Batch
    from chestxray.inference.engine import Engine
    from chestxray.inference.output_file import Format, Lines, Overlays

log = logging.getLogger("chestxray")


@click.command(name="predict")
@click.argument("run", type=READ_MODEL, metavar="RUN|FILE.onnx|PLUGIN:WEIGHTS")
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
    "class decided on; of findings, one by one [default: that of the run].",
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
    help="Print how common the classes, or findings, appear to be in these images, estimated without labels.",
)
@click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images at a time.")
@execution_options
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
    executor: str | None,
    workers: int | None,
    part_memory: float | None,
) -> None:
    """Predict image files or folders with RUN: the folder of a finished run or of an ensemble, an ONNX file
    made by `chestxray export`, which needs no TensorFlow, or a ready model, which answers as its publisher trained it.

    \b
        chestxray predict runs/x film.png other.dcm
        chestxray predict runs/x films --recursive --output answers.csv
        chestxray predict model.onnx films --recursive
        chestxray predict torchxrayvision:densenet121-res224-all film.png
        chestxray predict runs/x films --jsonl --heatmaps maps --abstain 0.95 > answers.jsonl
        chestxray predict runs/x films --recursive --output answers.csv --workers 4

    Writes one row per image: calibrated probabilities, the predicted class or, of each finding, whether it is
    present, or why nothing is decided. An existing --output (CSV or JSONL) is continued: only images without a row in
    it are predicted.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    kind = _kind(kinds, output)
    where = chosen(executor, workers, part_memory)
    from chestxray.data.images import listing
    from chestxray.inference import opening, shards
    from chestxray.inference.answer import abstaining
    from chestxray.inference.output_file import Lines, alone, done

    engine = opening.open_engine(run)
    if heatmaps is not None:
        _check_heatmaps(engine, heatmaps)
    rule = abstaining(run, engine.decision, abstain)
    _warn_of_abstention(rule, abstain)
    adjustment = None if prevalence is None else shares.adjustment(engine.decision, run, prevalence)
    judges = shares.judges(run, engine.decision) if estimate_prevalence else None
    files = listing.listed(paths, recursive=recursive)
    options = _limits(rule) + ("" if prevalence is None else f" at {prevalence:.12g}")
    mark = opening.fingerprint(run, options)
    lines = Lines(kind, rule, mark, heatmaps=heatmaps is not None)
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
        if where is None:
            batches = _here(engine, missing, rule, heatmaps, batch_size=batch_size, max_pixels=most)
        else:
            request = shards.Request(
                run, opening.fingerprint(run), Path.cwd(), rule, heatmaps, batch_size=batch_size, max_pixels=most
            )
            batches = shards.predicted_by(where, request, missing)
        with closing(batches):
            counts = _predict(engine, batches, len(missing), lines, output, rule, adjustment, seen)
    _summarise(counts)
    if judges is not None:
        shares.show(judges, seen)
    if counts["unreadable"] == len(missing) == len(files):
        raise SystemExit(1)


def _here(
    engine: Engine, paths: Sequence[str], rule: Rule, heatmaps: Path | None, *, batch_size: int, max_pixels: int
) -> Generator[tuple[Batch, Sequence[Overlays]]]:
    """Predict in this process; yield batches, and the names of the overlays that were written."""
    from chestxray.inference import batch_prediction
    from chestxray.inference.overlay_files import overlays_of

    for batch in batch_prediction.predicted(
        engine, paths, batch_size=batch_size, maps=heatmaps is not None, max_pixels=max_pixels
    ):
        yield batch, overlays_of(heatmaps, batch, engine, rule)


def _predict(
    engine: Engine,
    batches: Iterator[tuple[Batch, Sequence[Overlays]]],
    total: int,
    lines: Lines,
    output: Path | None,
    rule: Rule,
    adjustment: Adjustment | None,
    seen: list[np.ndarray],
) -> Counter[str]:
    """Write the answers for `batches` of `total` images, while the next ones come; return the images by outcome.

    The probabilities (rows, classes) of images accepted as radiographs are appended to `seen`.
    """
    from chestxray.inference.answer import answered
    from chestxray.inference.output_file import behind

    counts: Counter[str] = Counter()
    # The first batch shows whether the weights can be loaded; nothing is written before.
    first = next(batches)
    with _sink(output, lines) as put, progress("Predicting", total) as advance:

        def write(made: tuple[Batch, Sequence[Overlays]]) -> None:
            batch, names = made
            given = answered(batch.paths, batch.reasons, batch.outputs, engine, rule, adjustment)
            if batch.outputs is not None:
                films = [not answer.refused for answer in given if not answer.unreadable]
                seen.append(batch.outputs.probabilities[films])
            counts.update(answer.outcome for answer in given)
            put(lines.of(given, names))
            advance(len(given))

        with behind(write) as later:
            for made in itertools.chain([first], batches):
                later(made)
    return counts


def _warn_of_abstention(rule: Rule, asked: float | None) -> None:
    """Warn where validation was too small for the coverage, so that the model abstains from every image, and where a
    finding is always answered although a coverage was `asked` for, since validation could choose nothing for it.
    """
    from chestxray.evaluation.decision.conformal_quantile import patients_needed

    always = [name for name, one in by_finding(rule).items() if not one.chosen]
    if asked is not None and always:
        log.warning("The model never abstains from %s: nothing was chosen on validation.", ", ".join(always))
    silent = {name: one for name, one in by_finding(rule).items() if one.limit is not None and one.limit >= 1}
    if silent:
        level = next(iter(silent.values())).coverage
        needed = "" if level is None else f" {patients_needed(level)} patients would be needed."
        of = ", ".join(filter(None, silent)) or "every image"
        log.warning("Validation is too small to promise that coverage: the model abstains from %s.%s", of, needed)


def _limits(rule: Rule) -> str:
    """Return the limits of abstention as text, ``""`` where the model always answers."""
    limits = ["" if one.limit is None else f"{one.limit:.12g}" for one in by_finding(rule).values()]
    return "|".join(limits) if any(limits) else ""


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
    known = engine.heat_maps
    assert known is not None, "checked before"
    log.info("Heat maps are on one scale, 0 to %.3g (%s). %s", known.highest, known.unit, known.scale)
    log.info("%s", known.sentence)


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
