"""`chestxray neighbours`: finds the films that are most like a film."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chestxray.errors import InputError, OutputError

if TYPE_CHECKING:
    import pandas as pd

    from chestxray.inference.feature_table import FeatureTable

log = logging.getLogger("chestxray")


@click.command(name="neighbours")
@click.argument("features", type=click.Path(path_type=Path), metavar="FEATURES.parquet")
@click.option(
    "--of",
    "queries",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="OTHER.parquet|IMAGE",
    help="Search for these films: a file of features, or image files or folders [default: each film of FEATURES].",
)
@click.option("--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="Neighbours of each film.")
@click.option(
    "--copies-from",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    metavar="SIMILARITY",
    help="Mark films of different patients or splits from this similarity on as possible copies.",
)
@click.option("--output", type=click.Path(path_type=Path), help="CSV file [default: standard output].")
@click.option("--panel", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw films and their neighbours.")
@click.option("--overwrite", is_flag=True, help="Replace what is at --output and --panel.")
def command(
    features: Path,
    queries: tuple[Path, ...],
    count: int,
    copies_from: float,
    output: Path | None,
    panel: Path | None,
    overwrite: bool,
) -> None:
    """Find the films in FEATURES.parquet, made by `chestxray features`, that a network takes for most alike.

    \b
        chestxray neighbours kermany.parquet --count 3 --output near.csv --panel near.png
        chestxray neighbours train.parquet --of test.parquet --output near.csv
        chestxray neighbours kermany.parquet --of film.png

    Writes a row for each film and neighbour: their paths, the cosine similarity of their features, labels, patients,
    splits and sources of both. Pairs of different patients or splits at or above --copies-from are marked as possible
    copies. The mark is a hint and no proof: look at the films (--panel). `chestxray data audit` compares the images
    themselves.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    from chestxray.inference import feature_table, nearest_films
    from chestxray.inference.output_file import csv_line
    from chestxray.report.figures.style import save

    for path in filter(None, (output, panel)):
        feature_table.check_absent(path, overwrite=overwrite)
    if panel is not None and panel.suffix.lower() != ".png":
        raise OutputError(f"--panel must be a PNG file, with the suffix .png. Received: {panel}.")
    among = feature_table.FeatureTable.read(features)
    of = _films(queries, among)
    found = nearest_films.nearest(among, of, count, copies_from=copies_from)
    content = b"".join([csv_line(list(found.columns)), *map(csv_line, _lines(found))])
    _write(content, output)
    if panel is not None:
        from chestxray.report.figures.neighbours import neighbour_panel

        save(neighbour_panel(nearest_films.tiles(found)), panel)
    _summarise(found, nearest_films.possible_copies(found), copies_from, len(of.rows) - len(of.readable))


def _films(queries: tuple[Path, ...], among: FeatureTable) -> FeatureTable:
    from chestxray.data.images import listing
    from chestxray.inference import feature_table, nearest_films
    from chestxray.models import startup

    tables = [path for path in queries if path.suffix.lower() == ".parquet"]
    if not queries:
        return among
    if tables and len(queries) > 1:
        raise InputError(
            f"--of takes one file of features, or images. Received: {len(queries)} paths, with {tables[0]}."
        )
    if tables:
        return feature_table.FeatureTable.read(tables[0])
    startup.require_tensorflow("A Keras model")
    return nearest_films.of_images(listing.listed(queries, recursive=False), among)


def _lines(found: pd.DataFrame) -> list[list[str]]:
    marks = found["possible_copy"].map({True: "yes", False: ""})
    shown = found.assign(similarity=found["similarity"].map("{:.6f}".format), possible_copy=marks)
    return shown.astype(str).to_numpy().tolist()


def _write(content: bytes, output: Path | None) -> None:
    from chestxray.storage.files import write_bytes

    if output is not None:
        write_bytes(output, content)
        return
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _summarise(found: pd.DataFrame, copies: pd.DataFrame, copies_from: float, unreadable: int) -> None:
    first = found.groupby("film", sort=False)["similarity"].max()
    middle, most = first.quantile([0.5, 0.99])
    log.info("%d films; similarity of the nearest: median %.3f, 99th percentile %.3f.", len(first), middle, most)
    if unreadable:
        log.warning("%d unreadable: they have no neighbours.", unreadable)
    log.info(
        "Possible copies, of different patients or splits and at least %g alike: %d pair%s. This is a hint and no "
        "proof: films of two people may be as similar, and copies that were cropped, turned or mirrored less.",
        copies_from, len(copies), "" if len(copies) == 1 else "s",
    )  # fmt: skip
    for row in copies.head(10).itertuples():
        log.info("  %.3f  %s ~ %s", row.similarity, row.film, row.neighbour)
    log.info("Research use only. Not a medical device; not for diagnosis.")
