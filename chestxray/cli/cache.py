"""`chestxray cache`: shows or clears the cache."""

from __future__ import annotations

from pathlib import Path

import click

from chestxray.storage import cache


@click.group(name="cache")
def command() -> None:
    """Show or clear the cache: decoded images, phantoms and downloads that later runs reuse.

    The folder is the platform's cache folder, or $CHESTXRAY_CACHE, or --cache.
    """


@command.command()
@click.option("--cache", "folder", type=click.Path(path_type=Path), help="Cache folder.")
def show(folder: Path | None) -> None:
    """Show the entries of the cache and their sizes."""
    path = cache.root(folder)
    found = cache.entries(path)
    for entry in found:
        click.echo(f"{entry.bytes / 1e6:10.1f} MB  {entry.kind}/{entry.name}")
    click.echo(f"{sum(entry.bytes for entry in found) / 1e6:10.1f} MB  in {path}")


@command.command()
@click.option("--cache", "folder", type=click.Path(path_type=Path), help="Cache folder.")
@click.option("--kind", help="Only this kind, as `cache show` names it before the slash.")
def clear(folder: Path | None, kind: str | None) -> None:
    """Delete the entries of the cache; later runs create them again."""
    path = cache.root(folder)
    click.echo(f"Freed {cache.clear(path, kind) / 1e6:.1f} MB in {path}.")
