"""`chestxray cache`: shows, verifies, prunes or clears the cache."""

from __future__ import annotations

from pathlib import Path

import click

from chestxray.cli.places import CACHE
from chestxray.storage import cache


@click.group(name="cache")
def command() -> None:
    """Show, verify, prune or clear the cache: decoded images, phantoms and downloads that later runs reuse.

    The folder is the platform's cache folder, or $CHESTXRAY_CACHE, or --cache.
    """


folder_option = click.option("--cache", "folder", type=CACHE, help="Cache folder.")
kind_option = click.option("--kind", help="Only this kind, as `cache show` names it before the slash.")


@command.command()
@folder_option
def show(folder: Path | None) -> None:
    """Show the entries of the cache, their sizes and when they were last used."""
    path = cache.root(folder)
    found = cache.entries(path)
    for entry in found:
        used = entry.used.when.replace("T", " ") or ("unknown" if entry.complete else "incomplete")
        click.echo(f"{entry.bytes / 1e6:10.1f} MB  {used:19}  {entry.kind}/{entry.name}")
    click.echo(f"{sum(entry.bytes for entry in found) / 1e6:10.1f} MB  in {path}")


@command.command()
@folder_option
@kind_option
@click.option("--delete", is_flag=True, help="Delete what is damaged; later runs make it again.")
def verify(folder: Path | None, kind: str | None, delete: bool) -> int:
    """Compare every byte of the cache with its checksums, and list what is damaged.

    The exit code is 1 if an entry is damaged and was not deleted.
    """
    from tqdm import tqdm

    from chestxray.storage import cache_check

    path = cache.root(folder)
    chosen = [entry for entry in cache.entries(path) if kind in (None, entry.kind)]
    counts: dict[str, int] = {}
    left = 0
    with tqdm(total=sum(entry.bytes for entry in chosen), unit="B", unit_scale=True, disable=None, leave=False) as bar:
        for entry in chosen:
            start = bar.n
            state, wrong = cache_check.verify(entry, bar.update)
            bar.update(entry.bytes - (bar.n - start))
            counts[state] = counts.get(state, 0) + 1
            if state == "damaged":
                more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
                gone = delete and cache.delete(entry)
                left += not gone
                outcome = "; deleted" if gone else "; kept, since a running process uses it" if delete else ""
                bar.write(f"damaged: {entry.kind}/{entry.name}: {wrong[0]}{more}{outcome}")
            elif state != "whole":
                bar.write(f"{state}: {entry.kind}/{entry.name}")
    summary = ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) or "no entries"
    click.echo(f"{summary}, in {path}")
    return 1 if left else 0


@command.command()
@folder_option
@click.option("--keep-gb", type=click.FloatRange(min=0), required=True, help="Most that is kept, in 10^9 bytes.")
def prune(folder: Path | None, keep_gb: float) -> None:
    """Delete what was not used for longest until at most so much is left. What a running process uses is kept."""
    path = cache.root(folder)
    freed = 0
    for entry, deleted in cache.prune(path, round(keep_gb * 1e9)):
        freed += entry.bytes * deleted
        what = "deleted" if deleted else "kept, since a running process uses it"
        click.echo(f"{entry.bytes / 1e6:10.1f} MB  {entry.kind}/{entry.name}: {what}")
    left = sum(entry.bytes for entry in cache.entries(path))
    click.echo(f"Freed {freed / 1e6:.1f} MB; {left / 1e6:.1f} MB are left in {path}.")


@command.command()
@folder_option
@kind_option
def clear(folder: Path | None, kind: str | None) -> None:
    """Delete the entries of the cache; later runs create them again. What a running process uses is kept."""
    path = cache.root(folder)
    freed, kept = cache.clear(path, kind)
    for entry in kept:
        click.echo(f"Kept, since a running process uses it: {entry.kind}/{entry.name}")
    click.echo(f"Freed {freed / 1e6:.1f} MB in {path}.")
