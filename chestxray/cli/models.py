"""`chestxray models`: lists or times the installed architectures."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chestxray.cli.places import CACHE
from chestxray.errors import InputError

if TYPE_CHECKING:
    from chestxray.cli.plugin_listing import Listed

log = logging.getLogger("chestxray")


@click.command(name="models")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--benchmark", is_flag=True, help="Time training and inference here, with and without XLA: minutes a model."
)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Batch size of --benchmark.")
@click.option("--image-size", help="Size for --benchmark, N or HEIGHTxWIDTH [default: each architecture's own].")
@click.option("--cache", type=CACHE, help="Cache folder, which keeps the timings.")
def command(
    names: tuple[str, ...], as_json: bool, benchmark: bool, batch_size: int, image_size: str | None, cache: Path | None
) -> None:
    """List the installed architectures, including broken ones with the reason; with --benchmark, time NAMES."""
    from chestxray import registry
    from chestxray.cli import plugin_listing

    if benchmark:
        _benchmark(names, as_json, batch_size, image_size, cache)
        return
    if names or image_size:
        raise InputError("names and --image-size are for --benchmark.")
    found = [_described(item) for item in plugin_listing.survey(registry.MODELS)]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("No model plugin is installed. From a checkout: pip install ./plugins/*")
        return
    from chestxray.cli.output import plain, table

    table(("model", "size", "minimum", "weights", "Grad-CAM", "from"), [_row(model) for model in found])
    for model in found:
        if model["broken"]:
            click.echo(plain(model["broken"]))


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    origin = f"{model['distribution']} {model['version']}"
    if model["broken"]:
        return model["name"], "broken", "", "", "", origin
    minimum = "fixed" if model["fixed_size"] else _size(model["minimum_size"])
    weights = ", ".join(["none", *model["weights"]])
    return model["name"], _size(model["image_size"]), minimum, weights, model["cam_layer"] or "-", origin


def _benchmark(names: tuple[str, ...], as_json: bool, batch: int, image_size: str | None, cache: Path | None) -> None:
    from chestxray import registry
    from chestxray.models import startup
    from chestxray.recipe import parse_image_size
    from chestxray.storage import cache as caches

    startup.require_tensorflow("The benchmark")
    size = parse_image_size(image_size) if image_size else None
    known = [entry.name for entry in registry.entries(registry.MODELS)]
    plugins = {name: registry.load_plugin(registry.MODELS, name) for name in (names or known)}
    log.info("Loading TensorFlow ...")
    startup.start()
    import keras

    from chestxray.models import assembly, xla_compilation

    rows: list[dict[str, Any]] = []
    for name, plugin in plugins.items():
        keras.backend.clear_session()
        built = assembly.build(plugin, 2, size or plugin.image_size, name=name).model
        kinds: tuple[tuple[str, xla_compilation.Work], ...] = (("inference", "inference"), ("training", "full"))
        for title, work in kinds:
            log.info("Timing %s (%s) ...", name, title)
            timing = xla_compilation.remembered(built, work, batch, caches.root(cache))
            rows.append(
                {
                    "model": name,
                    "work": title,
                    "image_size": list(size or plugin.image_size),
                    "batch_size": batch,
                    "images_per_second": round(batch / timing.plain, 2),
                    "images_per_second_xla": None if timing.xla is None else round(batch / timing.xla, 2),
                    "xla_compiles_in_seconds": round(timing.compiling, 1),
                }
            )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    from chestxray.cli.output import table

    columns = ("model", "work", "size", "images/s", "images/s with XLA", "XLA compiles in", "faster")
    table(columns, [_timed(row) for row in rows])


def _timed(row: dict[str, Any]) -> tuple[str, ...]:
    plain, xla = row["images_per_second"], row["images_per_second_xla"]
    faster = "-" if xla is None else ("XLA" if xla > plain else "plain")
    compiling = f"{row['xla_compiles_in_seconds']:.1f} s"
    return row["model"], row["work"], _size(row["image_size"]), f"{plain:g}", f"{xla or '-'}", compiling, faster


def _described(listed: Listed) -> dict[str, Any]:
    entry = listed.entry
    named = {"name": entry.name, "distribution": entry.distribution, "version": entry.version, "broken": listed.reason}
    return named | (listed.facts or {})


def _size(size: list[int]) -> str:
    return f"{size[0]}x{size[1]}"
