"""`chestxray export`: writes a run's model as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chestxray.cli.places import CACHE, CHANGE_MODEL

if TYPE_CHECKING:
    from chestxray.export import Exported
    from chestxray.export.quantisation import Quantised


@click.command(name="export")
@click.argument("run", type=CHANGE_MODEL, metavar="RUN|PLUGIN:WEIGHTS")
@click.option("--format", "form", required=True, metavar="FORMAT", help="onnx, litert, savedmodel or keras.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File [default: below export/ in the run's folder; of a ready model, here].",
)
@click.option("--overwrite", is_flag=True, help="Replace what is at --output.")
@click.option(
    "--quantise",
    type=click.Choice(["int8"]),
    help="Compute in 8-bit integers, of onnx: smaller and mostly faster, less exact. Calibrated on the run's training "
    "images; refused where the AUROC on its test images is lower by more than 0.01.",
)
@click.option("--force", is_flag=True, help="With --quantise, keep the file whatever AUROC it loses.")
@click.option("--cache", type=CACHE, help="Cache folder, for --quantise, in which the run decoded its images.")
def command(
    run: Path,
    form: str,
    output: Path | None,
    overwrite: bool,
    quantise: str | None,
    force: bool,
    cache: Path | None,
) -> None:
    """Write the model of RUN as one file that maps raw pixels to probabilities, heat map and distance.

    \b
        chestxray export runs/x --format onnx
        chestxray export runs/x --format litert --output phone.tflite
        chestxray export runs/x --format onnx --quantise int8
        chestxray export torchxrayvision:densenet121-res224-all --format onnx

    The file is read back and compared with the run's model; a file with different outputs is deleted.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    from chestxray.export import export

    exported = export(
        run, form, output=output, overwrite=overwrite, int8=quantise is not None, force=force, cache=cache
    )
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
        (name, f"{difference:.1e}", f"{checked.tolerances[name]:g}" if checked.tolerances else "-")
        for name, difference in checked.differences.items()
    ]
    table(("output", "largest difference", "allowed"), rows)
    speeds = [
        ("this file", f"{exported.megabytes:,.1f}", f"{checked.rate:,.1f}"),
        ("TensorFlow, the same outputs", "", f"{checked.tensorflow_rate:,.1f}"),
    ]
    table(("", "MB", "images/s"), speeds)
    if exported.quantised is not None:
        _print_quantised(exported.quantised)


def _print_quantised(made: Quantised) -> None:
    from chestxray.cli.output import quoted, table
    from chestxray.export.quantisation import LARGEST_LOSS

    click.echo(f"\nint8, calibrated on {made.calibrated_on:,} training images, beside the same file in float32:")
    (size, smaller), (rate, faster) = made.megabytes, made.rates
    rows = [
        ("MB", f"{size:,.1f}", f"{smaller:,.1f}", f"{smaller / size:.2f} of the size"),
        ("images/s, measured in turns", f"{rate:,.1f}", f"{faster:,.1f}", f"{faster / rate:.2f} of the speed"),
    ]
    table(("", "float32", "int8", "int8 to float32"), rows)
    click.echo(
        f"Change of the AUROC on {made.tested:,} test images: {quoted(made.gap.to_json())} (95% interval, {made.how}); "
        f"allowed: a loss of {LARGEST_LOSS:g}{', which --force overrides' if made.too_large else ''}. "
        f"Another decision is taken about {made.changed:,} of them."
    )
