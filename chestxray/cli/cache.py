"""`chestxray cache`: what is kept to be used again."""

from __future__ import annotations

from pathlib import Path

import click

from chestxray.storage import cache


@click.group(name="cache")
def command() -> None:
    """Show or clear what is kept to be used again: decoded images, drawn phantoms, downloads.

    The folder is the platform's cache folder, or $CHESTXRAY_CACHE, or --cache.
    """


@command.command()
@click.option("--cache", "folder", type=click.Path(path_type=Path), help="Cache folder.")
def show(folder: Path | None) -> None:
    """Show what is kept and how large it is."""
    path = cache.root(folder)
    found = cache.entries(path)
    for entry in found:
        click.echo(f"{entry.bytes / 1e6:10.1f} MB  {entry.kind}/{entry.name}")
    click.echo(f"{sum(entry.bytes for entry in found) / 1e6:10.1f} MB  in {path}")


@command.command()
@click.option("--cache", "folder", type=click.Path(path_type=Path), help="Cache folder.")
@click.option("--kind", help="Only this kind, as `cache show` names it before the slash.")
def clear(folder: Path | None, kind: str | None) -> None:
    """Delete what is kept; the next run makes it again."""
    path = cache.root(folder)
    click.echo(f"Freed {cache.clear(path, kind) / 1e6:.1f} MB in {path}.")
