"""The last lines of a command that evaluates: the limitations of the result and the path of the report."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from chestxray.runs.run_folder import Run

#: Columns of the terminal at which sentences are wrapped.
WIDTH = 100


def close(run: Run) -> None:
    """Print the limitations of the result, the serious ones first and marked, then the path of the report."""
    from chestxray._version import RESEARCH_ONLY
    from chestxray.report.limitations import NOTED, cautions
    from chestxray.runs import run_folder

    run = run_folder.open_complete(run.folder)
    rule = run.extras.get("operating_points", {}).get("rule")
    if rule and run.positive:
        click.echo(textwrap.fill(rule, WIDTH, break_long_words=False))
    # Notes on the data were already logged during the run.
    found = [caution for caution in cautions(run) if caution.title != NOTED]
    if found:
        click.echo("\nWhat weakens this result:")
    for caution in found:
        mark = "!" if caution.weight == "serious" else "-"
        text = f"{mark} {caution.title}. {run.shorten_in(caution.text)}"
        click.echo(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False))
    click.echo(f"Report: {run.report}")
    click.echo(RESEARCH_ONLY)
