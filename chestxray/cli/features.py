"""`chestxray features`: writes the feature vectors of films for other tools."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from chestxray.cli.options import some_options
from chestxray.cli.places import CACHE

log = logging.getLogger("chestxray")

_FIELDS = (
    "path", "data_option", "patient_pattern", "label_pattern", "classes", "map", "drop", "uncertain", "view",
    "weights", "image_size", "fit", "max_pixels", "max_unreadable", "cache_gigabytes",
)  # fmt: skip


@click.command(name="features")
@click.argument("model", metavar="RUN|MODEL|PLUGIN:WEIGHTS")
@click.argument("data", nargs=-1, metavar="[DATA]...")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Parquet file.")
@click.option("--overwrite", is_flag=True, help="Replace what is at --output.")
@click.option("--cache", type=CACHE, help="Cache folder.")
@some_options(*_FIELDS)
def command(model: str, data: tuple[str, ...], output: Path, overwrite: bool, cache: Path | None, **given: Any) -> None:
    """Write the features of each image of DATA: the vector that a network makes of it before its last layer.

    \b
        chestxray features runs/x --output own.parquet
        chestxray features runs/x folder:films --output films.parquet
        chestxray features densenet121 kermany --weights imagenet --image-size 224 --output kermany.parquet

    RUN is the folder of a finished run, whose image size and fit are used; without DATA its own images are taken, with
    its splits. MODEL is an architecture that `chestxray models` lists, with --weights (default: the first that it
    offers), and PLUGIN:WEIGHTS a ready model. DATA is as `chestxray run --data` takes it.

    The features of a RUN are what the dense layer takes that gives its logits, those of a MODEL the output of its
    backbone, averaged over its places; with the default head both are the same vector. The table has the columns path,
    label, patient, split, source, of findings one for each, unreadable, and features: a list of float32, of the same
    length in each row.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    from chestxray.inference import feature_table, ready_models, ready_names
    from chestxray.models import startup
    from chestxray.progress import show_if_interactive
    from chestxray.storage import cache as caches
    from chestxray.storage import remote

    feature_table.check_output(output, overwrite=overwrite)
    startup.require_tensorflow("A Keras model")
    choices = {name: value for name, value in given.items() if value is not None and value != ()}
    choices |= {"data": data} if data else {}
    show_if_interactive()
    root = caches.root(cache)
    if ready_names.is_name(model):
        folder = ready_models.folder_of(model, root)
    else:
        folder = remote.fetched(model) if remote.is_address(model) else Path(model)
    if folder.is_dir():
        made = feature_table.of_run(folder, choices, root)
    else:
        made = feature_table.of_model(model, choices, root)
    made.write(output)
    bad = len(made.rows) - len(made.readable)
    level = logging.WARNING if bad else logging.INFO
    log.log(level, "%s: %d images, %d unreadable.", output, len(made.rows), bad)
    log.info("Research use only. Not a medical device; not for diagnosis.")
