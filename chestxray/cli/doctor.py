"""`chestxray doctor`: what is installed, on what machine, and what is wrong with it."""

from __future__ import annotations

import json
import sys

import click


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--cache", help="Cache folder to look at [default: $CHESTXRAY_CACHE].")
@click.option("--output", help="Folder to look at for results [default: runs].")
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    help="Most seconds that TensorFlow, JAX and each plugin may take to answer.",
)
def command(as_json: bool, cache: str | None, output: str | None, timeout: float) -> None:
    """Show versions, devices, memory, folders, plugins and extras, and what is wrong with them.

    The text is fit for a bug report: the home folder is written as ~, the user's name as USER, and no data, run or
    secret is looked at. TensorFlow, JAX and plugins are asked in processes of their own, so that a broken driver does
    not end this one. Exit code 1 where something is wrong.
    """
    from chestxray.cli.diagnosis import examine, page
    from chestxray.cli.output import plain

    facts = examine(cache, output, timeout)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        click.echo(plain("\n".join(page.lines(facts))))
    sys.exit(1 if facts["problems"] else 0)
