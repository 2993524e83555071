"""`chestxray calibrate`: calibrates a ready model, or a finished run, on other films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chestxray.cli.options import some_options
from chestxray.cli.places import CACHE, READ_MODEL, WRITE

_OPTIONS = (
    "path", "data_option", "patient_pattern", "label_pattern", "map", "drop", "uncertain", "view", "on_leak",
    "max_unreadable", "split", "split_seed", "by", "abstain", "sensitivity", "confidence", "prevalence", "refuse",
    "replicates", "heatmaps",
)  # fmt: skip


@click.command(name="calibrate")
@click.argument("model", type=READ_MODEL, metavar="RUN|PLUGIN:WEIGHTS")
@click.option("--data", multiple=True, required=True, help="Films of yours with labels, as of `chestxray run`.")
@some_options(*_OPTIONS)
@click.option(
    "--validation-share",
    type=float,
    help="Share of the images that choose calibration and thresholds [default: 0.4].",
)
@click.option("--test-share", type=float, help="Share of the images for the test [default: 0.2].")
@click.option("--output", type=WRITE, help="Folder [default: runs/TIME-MODEL-calibrated-DATA].")
@click.option("--overwrite", is_flag=True, help="Replace the run in --output.")
@click.option("--cache", type=CACHE, help="Cache folder [default: $CHESTXRAY_CACHE].")
def command(
    model: Path, data: tuple[str, ...], output: Path | None, overwrite: bool, cache: Path | None, **given: Any
) -> None:
    """Calibrate the probabilities of MODEL on films of yours, choose its thresholds on them, and test it.

    \b
        chestxray calibrate torchxrayvision:densenet121-res224-all --data folder:mine --output runs/mine
        chestxray calibrate runs/x --data manifest:second-hospital.csv --sensitivity 0.9

    Nothing is trained. The folder that is written is one of a run: `predict`, `serve`, `export` and `evaluate` take it.
    Findings that the films do not label, or that too few patients have, keep the probabilities and thresholds of MODEL.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    from chestxray.cli.run import summarise
    from chestxray.recipe import Recipe
    from chestxray.storage import cache as caches
    from chestxray.studies import calibration

    shares = {"validation_share": calibration.VALIDATION_SHARE, "test_share": calibration.TEST_SHARE}
    changes = shares | {name: value for name, value in given.items() if value not in (None, ())}
    recipe = Recipe(data=data).replace(**changes)
    made = calibration.calibrate(model, recipe, caches.root(cache), output=output, overwrite=overwrite)
    summarise(made)
