"""`chestxray plugin`: checks a plugin, creates a new one, or lists those that are no architectures."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chestxray.errors import InputError

if TYPE_CHECKING:
    from chestxray.registry import InstalledPlugin
    from chestxray.testing.results import CheckResult

log = logging.getLogger("chestxray")

#: The kinds that `new` writes; there is one segmenter, of this project's own, and its kind can be checked too.
NEW = ("model", "source", "metric", "loss", "augmentation", "explanation")
KINDS = click.Choice((*NEW, "segmenter"))


@click.group(name="plugin")
def command() -> None:
    """Check a plugin, create a new one, or list those that are no architectures."""


@command.command()
@click.argument("name")
@click.option("--kind", type=KINDS, default="model", show_default=True, help="What the plugin is.")
@click.option("--address", help="Address that a source is to load, best a small set.")
@click.option("--data-option", multiple=True, metavar="NAME=VALUE", help="Option of a source.")
@click.option("--only", multiple=True, metavar="CHECK", help="Only this check; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def check(
    name: str, kind: str, address: str | None, data_option: tuple[str, ...], only: tuple[str, ...], as_json: bool
) -> int:
    """Run the conformance suite on an installed plugin; exit code 1 if a check fails.

    NAME is as `chestxray models` or `chestxray plugin list` shows it, or DISTRIBUTION:NAME.

    \b
        chestxray plugin check inceptionv3
        chestxray plugin check folder --kind source --address xrays
        chestxray plugin check my_metric --kind metric
    """  # noqa: D301 - \b keeps click from joining the lines
    from chestxray import registry
    from chestxray.testing import results_table

    group = registry.GROUPS[kind]
    entry = registry.find(group, name)
    if kind != "source" and (address is not None or data_option):
        raise InputError("--address and --data-option are for sources (--kind source).")
    # Output that a plugin prints must not mix with the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        plugin = registry.load_entry(group, entry)
        if kind == "model":
            results = _check_model(plugin, entry, only)
        elif kind == "source":
            results = _check_source(plugin, entry, only, address, data_option)
        else:
            results = _check_method(plugin, entry, only)
    if as_json:
        origin = {"distribution": entry.distribution, "version": entry.version}
        click.echo(
            json.dumps({"plugin": entry.name, "kind": kind, **origin, **results_table.to_json(results)}, indent=2)
        )
    else:
        _print(entry, results)
    return 1 if results_table.failed(results) else 0


@command.command()
@click.argument("name")
@click.option("--path", type=click.Path(path_type=Path), help="Folder of the package [default: chestxray-NAME].")
@click.option("--kind", type=click.Choice(NEW), default="model", show_default=True, help="What the plugin is.")
def new(name: str, path: Path | None, kind: Any) -> None:
    """Write the package of a new plugin, which can be installed and passes its checks without changes.

    \b
        chestxray plugin new my_model --path my_model
        pip install -e my_model
        chestxray plugin check my_model
    """  # noqa: D301 - as above
    from chestxray.testing.scaffold import new_plugin

    written = new_plugin(name, path, kind)
    for file in written:
        click.echo(f"Wrote {file}")
    of_kind = "" if kind == "model" else f" --kind {kind}"
    address = " --address PATH" if kind == "source" else ""
    click.echo(f"Next: pip install -e {written[0].parent} && chestxray plugin check {name}{of_kind}{address}")


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_(as_json: bool) -> None:
    """List the installed plugins of every kind but architectures, which `chestxray models` lists."""
    from chestxray import registry
    from chestxray.cli import plugin_listing
    from chestxray.cli.output import plain, table

    groups = [group for group in registry.KIND if group != registry.MODELS]
    found = [(registry.KIND[group], item) for group in groups for item in plugin_listing.survey(group)]
    if as_json:
        rows = [
            {
                "kind": kind,
                "name": item.entry.name,
                "distribution": item.entry.distribution,
                "version": item.entry.version,
                "broken": item.reason,
            }
            | (item.facts or {})
            for kind, item in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    table(
        ("kind", "name", "from", "reference"),
        [
            (
                kind,
                item.entry.name,
                f"{item.entry.distribution} {item.entry.version}",
                "broken" if item.reason else (item.facts or {}).get("reference", ""),
            )
            for kind, item in found
        ],
    )
    for _, item in found:
        if item.reason:
            click.echo(plain(item.reason))


def _check_model(plugin: Any, entry: InstalledPlugin, only: tuple[str, ...]) -> list[CheckResult]:
    from chestxray.models import startup

    startup.require_tensorflow("The conformance suite")
    log.info("Loading TensorFlow ...")
    startup.start()
    from chestxray.testing import run_checks

    with _progress(entry) as before:
        return run_checks(plugin, name=entry.name, module=entry.point.module, only=only or None, before=before)


def _check_source(
    plugin: Any, entry: InstalledPlugin, only: tuple[str, ...], address: str | None, data_option: tuple[str, ...]
) -> list[CheckResult]:
    import tempfile

    from chestxray.plugin import SourceOptions
    from chestxray.testing import run_source_checks

    if address is None:
        raise InputError(f"A source needs something to load: --address with a {plugin.address_help}.")
    extra = {}
    for option in data_option:
        key, sign, value = option.partition("=")
        if not key or not sign:
            raise InputError(f"--data-option must be NAME=VALUE. Received: {option!r}.")
        extra[key] = str(Path(value).expanduser().absolute()) if key in plugin.path_options else value
    with tempfile.TemporaryDirectory(prefix="chestxray-check-") as cache, _progress(entry) as before:
        return run_source_checks(
            plugin,
            address,
            options=SourceOptions(cache=Path(cache), extra=extra),
            module=entry.point.module,
            only=only or None,
            before=before,
        )


def _check_method(plugin: Any, entry: InstalledPlugin, only: tuple[str, ...]) -> list[CheckResult]:
    from chestxray.plugin import MetricPlugin

    if not isinstance(plugin, MetricPlugin):
        from chestxray.models import startup

        log.info("Loading TensorFlow ...")
        startup.start()
    from chestxray.testing import run_method_checks

    with _progress(entry) as before:
        return run_method_checks(plugin, name=entry.name, module=entry.point.module, only=only or None, before=before)


@contextlib.contextmanager
def _progress(entry: InstalledPlugin) -> Any:
    """Show on a terminal which check is running; yields a function that takes the name of the check."""
    from rich.console import Console

    with Console(stderr=True).status(f"{entry.name}: loading") as status:
        tell: Callable[[str], None] = lambda name: status.update(f"{entry.name}: {name}")  # noqa: E731
        yield tell


def _print(entry: InstalledPlugin, results: list[CheckResult]) -> None:
    from rich.console import Console

    from chestxray.testing import results_table

    console = Console(highlight=False)
    console.width = max(console.width, 100)
    console.print(results_table.table(results))
    console.print(f"{entry.qualified} {entry.version}: {results_table.summary(results)}", markup=False)
