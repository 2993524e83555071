"""`chestxray predict`: a finished run's answers for image files."""

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
    from chestxray.answers import Answer
    from chestxray.bulk import Batch
    from chestxray.engine import Engine
    from chestxray.rows_file import Format, Lines

log = logging.getLogger("chestxray")


@click.command(name="predict")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--recursive", is_flag=True, help="Search the folders below a folder too.")
@click.option("--csv", "kinds", flag_value="csv", multiple=True, help="A table [default].")
@click.option("--json", "kinds", flag_value="json", multiple=True, help="One JSON list.")
@click.option("--jsonl", "kinds", flag_value="jsonl", multiple=True, help="A JSON object a line.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File [default: standard output]. CSV and JSONL files are gone on with.",
)
@click.option("--heatmaps", type=click.Path(path_type=Path), metavar="DIR", help="Write Grad-CAM overlays there.")
@click.option(
    "--abstain",
    type=float,
    metavar="COVERAGE",
    help="Abstain where no single class is sure enough, learned from the run's validation [default: as the run].",
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
    batch_size: int,
) -> None:
    """Predict image files, or folders of them, with RUN, a finished run's folder or an ensemble's.

    \b
        chestxray predict runs/x film.png other.dcm
        chestxray predict runs/x films --recursive --output answers.csv
        chestxray predict runs/x films --jsonl --heatmaps maps --abstain 0.95 > answers.jsonl

    A row an image: calibrated probabilities, the class decided on, or why nothing is decided. An
    --output that exists is gone on with: only images without a row in it are predicted.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    kind = _kind(kinds, output)
    from chestxray import image_files, keras_engine
    from chestxray.answers import limit_for
    from chestxray.rows_file import Lines, alone, done

    engine = keras_engine.load(run)
    if heatmaps is not None:
        _check_heatmaps(engine, heatmaps)
    limit = limit_for(run, engine.decision, abstain)
    if limit is not None and limit >= 1:
        log.warning("Validation is too small to promise that coverage: the model abstains from every image.")
    files = image_files.listed(paths, recursive=recursive)
    mark = keras_engine.fingerprint(run, "" if limit is None else f"{limit:.12g}")
    lines = Lines(kind, engine.classes, mark, heatmaps=heatmaps is not None)
    with nullcontext() if output is None else alone(output):
        known = set() if output is None else done(output, lines)
        missing = [path for path in files if path not in known]
        if len(missing) < len(files):
            log.info("%d of %d images have a row in %s already.", len(files) - len(missing), len(files), output)
        if not missing:
            log.info("Nothing is left to do.")
            return
        most = keras_engine.max_pixels(run)
        counts = _predict(engine, missing, lines, output, limit, heatmaps, batch_size=batch_size, max_pixels=most)
    _summarise(counts)
    if counts["unreadable"] == len(missing) == len(files):
        raise SystemExit(1)


def _predict(
    engine: Engine,
    paths: Sequence[str],
    lines: Lines,
    output: Path | None,
    limit: float | None,
    heatmaps: Path | None,
    *,
    batch_size: int,
    max_pixels: int,
) -> Counter[str]:
    """Read, run and write: three steps that wait for nobody as long as there is work."""
    from chestxray import bulk
    from chestxray.answers import answered
    from chestxray.image_files import write_overlays
    from chestxray.rows_file import behind

    counts: Counter[str] = Counter()
    batches = bulk.predicted(engine, paths, batch_size=batch_size, maps=heatmaps is not None, max_pixels=max_pixels)
    # The first batch finds whether the weights can be loaded: until then nothing is written.
    first = next(batches)
    with _sink(output, lines) as put, _bar(len(paths)) as advance:

        def write(batch: Batch) -> None:
            given = answered(batch.paths, batch.reasons, batch.outputs, engine, limit)
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


def _kind(kinds: tuple[str, ...], output: Path | None) -> Format:
    if len(set(kinds)) > 1:
        raise InputError(f"Only one of --csv, --json and --jsonl can be had. Received: --{', --'.join(kinds)}.")
    suffix = "" if output is None else output.suffix.lower().removeprefix(".")
    chosen: Any = kinds[0] if kinds else suffix if suffix in ("csv", "json", "jsonl") else "csv"
    return chosen


def _check_heatmaps(engine: Engine, folder: Path) -> None:
    from chestxray.engine import check_maps
    from chestxray.errors import OutputError

    check_maps(engine)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"--heatmaps must be a folder. Received: the file {folder}.")


@contextmanager
def _sink(output: Path | None, lines: Lines) -> Iterator[Callable[[bytes], None]]:
    """Where lines go, the opening and closing written."""
    from chestxray.rows_file import appending, whole

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
    told = ", ".join(f"{counts[name]:,} {word}" for name, word in words.items() if counts[name] or name == "decided")
    level = logging.WARNING if counts["unreadable"] else logging.INFO
    log.log(level, "%s: %s.", "1 image" if counts.total() == 1 else f"{counts.total():,} images", told)
    log.info("Research use only. Not a medical device; not for diagnosis.")


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], Any]]:
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() or not log.isEnabledFor(logging.INFO)
    with tqdm(total=total, desc="Predicting", unit=" images", disable=hidden) as bar:
        yield bar.update
