"""`chestxray export`: writes a run's model as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chestxray.cli.places import CHANGE_MODEL

if TYPE_CHECKING:
    from chestxray.export import Exported


@click.command(name="export")
@click.argument("run", type=CHANGE_MODEL, metavar="RUN|PLUGIN:WEIGHTS")
@click.option("--format", "form", required=True, metavar="FORMAT", help="onnx, litert, savedmodel or keras.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File [default: below export/ in the run's folder; of a ready model, here].",
)
@click.option("--overwrite", is_flag=True, help="Replace what is at --output.")
def command(run: Path, form: str, output: Path | None, overwrite: bool) -> None:
    """Write the model of RUN as one file that maps raw pixels to probabilities, heat map and distance.

    \b
        chestxray export runs/x --format onnx
        chestxray export runs/x --format litert --output phone.tflite
        chestxray export torchxrayvision:densenet121-res224-all --format onnx

    The file is read back and compared with the run's model; a file with different outputs is deleted.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    from chestxray.export import export

    exported = export(run, form, output=output, overwrite=overwrite)
    _print_check(exported)
    for note in exported.notes:
        click.echo(note)
    click.echo(f"Exported: {exported.path}")
    click.echo("Research use only. Not a medical device; not for diagnosis.")


def _print_check(exported: Exported) -> None:
    from chestxray.cli.output import table

    checked = exported.checked
    click.echo(f"\nCompared with the run's model on {checked.images}:")
    rows = [
        (name, f"{difference:.1e}", f"{checked.tolerances[name]:g}") for name, difference in checked.differences.items()
    ]
    table(("output", "largest difference", "allowed"), rows)
    speeds = [
        ("this file", f"{exported.megabytes:,.1f}", f"{checked.rate:,.1f}"),
        ("TensorFlow, the same outputs", "", f"{checked.tensorflow_rate:,.1f}"),
    ]
    table(("", "MB", "images/s"), speeds)
