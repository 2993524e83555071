"""`chestxray leakage`: trains one model with leaky and with leak-free splits."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import click

from chestxray.cli.options import execution_options, recipe_from, some_options
from chestxray.cli.places import CACHE, WRITE
from chestxray.cli.resume_hint import repeatable
from chestxray.execution.executor import chosen
from chestxray.models.startup import require_tensorflow
from chestxray.recipe import Recipe

log = logging.getLogger("chestxray")

#: Fields of `Recipe` that this command sets itself; its --metric is the figure to measure.
_DECIDED = ("split", "folds", "fold", "held_out", "on_leak", "test_data", "metric")
_GIVEN = tuple(field.name for field in dataclasses.fields(Recipe) if field.name not in _DECIDED)


@click.command(name="leakage", context_settings={"show_default": False})
@click.option("--recipe", "recipe_name", metavar="NAME|FILE", help="A recipe of chestxray or a TOML file.")
@some_options(*_GIVEN)
@click.option("--metric", default="auroc", show_default=True, help="Figure to measure, such as auroc or accuracy.")
@click.option(
    "--seeds",
    type=int,
    default=1,
    show_default=True,
    help="Trainings of each split; with several, their variation is included.",
)
@click.option("--output", type=WRITE, help="Folder [default: below leakage/].")
@click.option("--overwrite", is_flag=True, help="Train finished parts anew.")
@execution_options
@click.option("--cache", type=CACHE, help="Cache folder [default: $CHESTXRAY_CACHE].")
def command(
    recipe_name: str | None,
    metric: str,
    seeds: int,
    output: Path | None,
    overwrite: bool,
    cache: Path | None,
    executor: str | None,
    workers: int | None,
    part_memory: float | None,
    **given: Any,
) -> None:
    """Measure how much a leaky split inflates the results: train one model with several splits.

    \b
        chestxray leakage --model shallow_cnn --data kermany
        chestxray leakage --model resnet18 --data folder:xrays --patient-pattern '(person\\d+)_'

    The splits are random by image, as in most notebooks; by patient; and the official one, if the data have
    one. All other settings are the same, and leaks are kept. To continue after an interruption, repeat the
    command. Open leakage.html for the result.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    recipe, demonstration = recipe_from(recipe_name, given)
    if demonstration and recipe.model:
        log.info("No --data: a demonstration on drawn phantoms, which are no radiographs.")
    where = chosen(executor, workers, part_memory)
    require_tensorflow("Training")
    from chestxray.cli.output import quoted, table
    from chestxray.studies import split_leakage
    from chestxray.studies.leakage_result import SPLITS

    with repeatable():
        found, page = split_leakage.measure(
            recipe, output, cache, metric=metric, seeds=seeds, overwrite=overwrite, executor=where
        )
    rows = [
        (
            split.name,
            SPLITS[split.name],
            f"{split.training:,}",
            f"{split.rows:,}",
            f"{split.leaking:,}",
            quoted(split.figures[metric].to_json()),
            quoted(found.gains[split.name].to_json()) if split.name in found.gains else "-",
        )
        for split in found.splits
    ]
    click.echo(f"\n{found.model} on {found.data}")
    figure = f"{found.title} (95% interval)"
    table(("split", "drawn", "training images", "test images", "leaking", figure, "random minus this"), rows)
    if found.findings:
        splits = [split.name for split in found.splits]
        table(
            ("finding", *splits, *(f"random minus {name}" for name in found.gains)),
            [
                [
                    name,
                    *(quoted(split.figures[metric].to_json()) for split in one.splits),
                    *(quoted(gain.to_json()) for gain in one.gains.values()),
                ]
                for name, one in found.findings.items()
            ],
        )
    click.echo(" ".join(found.verdict))
    click.echo(f"Page: {page}")
    click.echo("Research use only. Not a medical device; not for diagnosis.")
