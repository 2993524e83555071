"""`chestxray ensemble`: averages the probabilities of several runs."""

from __future__ import annotations

from pathlib import Path

import click

from chestxray.cli.places import CACHE, READ, WRITE


@click.command(name="ensemble")
@click.argument("runs", nargs=-1, required=True, type=READ, metavar="RUN RUN...")
@click.option("--output", type=WRITE, help="The ensemble's folder [default: below runs/].")
@click.option("--overwrite", is_flag=True, help="Replace the ensemble that is in the output folder.")
@click.option("--cache", type=CACHE, help="Cache folder [default: $CHESTXRAY_CACHE].")
def command(runs: tuple[Path, ...], output: Path | None, overwrite: bool, cache: Path | None) -> None:
    """Average the probabilities of two or more runs that were tested on the same images.

    \b
        chestxray ensemble runs/a runs/b runs/c --output runs/mean
        chestxray compare runs/mean runs/a runs/b runs/c

    The ensemble's folder is like a run's, but without a model: ensemble.json names the members. Controls are
    trained anew if the decoded images of a run are still in the cache; otherwise the members' are used.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    from chestxray.studies import candidates, ensembling

    members = candidates.opened(runs, task=None)
    folder = output or ensembling.default_folder(members)
    ensembling.check_folder(folder, overwrite=overwrite)
    found = ensembling.write(members, folder, cache)
    from chestxray.cli.run import summarise

    summarise(found)
