"""`chestxray models`: what is installed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from chestxray.plugin import ModelPlugin
    from chestxray.registry import Entry


@click.command(name="models")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(as_json: bool) -> None:
    """List the architectures that are installed, also broken ones with the reason."""
    from chestxray import registry

    found = [_describe(*item) for item in registry.survey(registry.MODELS)]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("No model plugin is installed. From a checkout: pip install ./plugins/*")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False)
    for column in ("model", "size", "minimum", "weights", "Grad-CAM", "from"):
        table.add_column(column, overflow="fold")
    broken = [model for model in found if model["broken"]]
    for model in found:
        origin = f"{model['distribution']} {model['version']}"
        if model["broken"]:
            table.add_row(model["name"], "[red]broken[/red]", "", "", "", origin)
            continue
        table.add_row(
            model["name"],
            _size(model["image_size"]),
            "fixed" if model["fixed_size"] else _size(model["minimum_size"]),
            ", ".join(["none", *model["weights"]]),
            model["cam_layer"] or "-",
            origin,
        )
    # Wide enough for whole names also where there is no terminal to ask for its width.
    console = Console()
    console.width = max(console.width, 120)
    console.print(table)
    for model in broken:
        click.echo(model["broken"])


def _describe(entry: Entry, plugin: ModelPlugin | None, reason: str) -> dict[str, Any]:
    described = {
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "broken": reason,
    }
    if plugin is None:
        return described
    return described | {
        "image_size": list(plugin.image_size),
        "minimum_size": list(plugin.minimum_size),
        "fixed_size": plugin.fixed_size,
        "channels": plugin.channels,
        "weights": list(plugin.weights),
        "cam_layer": plugin.cam_layer,
        "reference": plugin.reference,
        "licence": plugin.licence,
        "weights_licence": plugin.weights_licence,
    }


def _size(size: list[int]) -> str:
    return f"{size[0]}x{size[1]}"
