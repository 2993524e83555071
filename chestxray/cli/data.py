"""`chestxray data`: lists, shows, audits, prepares and exports data sets."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chestxray.cli.options import execution_options, some_options
from chestxray.cli.output import table
from chestxray.cli.places import CACHE

if TYPE_CHECKING:
    import pandas as pd

    from chestxray.data.audit import Audit
    from chestxray.recipe import Recipe
    from chestxray.report.data_summary import Summary

log = logging.getLogger("chestxray")

#: (height, width) in pixels: the input size of most architectures, so that runs find the images already decoded.
SIZE = (224, 224)
_SOURCE = (
    "test_data", "path", "data_option", "patient_pattern", "label_pattern", "classes", "map", "drop",
    "uncertain", "view", "image_size", "fit", "max_pixels",
)  # fmt: skip
_SPLIT = ("split", "validation_share", "test_share", "keep_validation", "on_leak", "max_unreadable", "seed")


@click.group(name="data")
def command() -> None:
    """List, show, audit, prepare and export data sets.

    DATA is KIND:ADDRESS, such as folder:PATH, or a name that `chestxray data list` shows; several
    are merged.
    """


def _takes_data(*fields: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(inner: Callable[..., Any]) -> Callable[..., Any]:
        inner = click.option("--cache", type=CACHE, help="Cache folder.")(inner)
        return some_options(*_SOURCE, *fields)(inner)

    return add


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--cache", type=CACHE, help="Cache folder.")
def list_sets(as_json: bool, cache: Path | None) -> None:
    """List the catalogue of public data sets, and which of them are on disk."""
    import dataclasses

    from chestxray.data.catalogue import catalogue, on_disk
    from chestxray.storage import cache as caches

    root = caches.root(cache)
    places = {name: on_disk(entry, root) for name, entry in catalogue().entries.items()}
    if as_json:
        found = [
            dataclasses.asdict(entry) | {"on_disk": str(places[name]) if places[name] else None}
            for name, entry in catalogue().entries.items()
        ]
        click.echo(json.dumps(found, indent=2))
        return
    rows = [
        (name, f"{e.images:,}", f"{e.megabytes:,} MB", ", ".join(e.classes), e.licence, "yes" if places[name] else "no")
        for name, e in catalogue().entries.items()
    ]
    table(("name", "images", "download", "classes", "licence", "on disk"), rows)
    click.echo("")
    for name, entry in catalogue().entries.items():
        click.echo(f"{name}: {entry.title}. {entry.defects}")


@command.command()
@click.argument("data", nargs=-1, required=True)
@_takes_data()
@click.option("--output", type=click.Path(path_type=Path), help="Folder for figures [default: none are drawn].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def show(data: tuple[str, ...], cache: Path | None, output: Path | None, as_json: bool, **given: Any) -> None:
    """Show the contents of DATA: images by class and split, sizes, modes, patients; figures with --output.

    Of findings, the images in which each is present, absent, uncertain and not known.
    """
    summary = _summary(_recipe(data, given), cache)
    drawn = summary.write_figures(output) if output else []
    if as_json:
        click.echo(json.dumps(summary.to_json(), indent=2, ensure_ascii=False))
        return
    _print_summary(summary)
    for path in drawn:
        click.echo(f"Figure: {path}")


@command.command()
@click.argument("data", nargs=-1, required=True)
@_takes_data()
@click.option("--output", type=click.Path(path_type=Path), help="Folder for contact sheets of the copies.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def audit(data: tuple[str, ...], cache: Path | None, output: Path | None, as_json: bool, **given: Any) -> int:
    """Search DATA for defects that would make results too optimistic.

    Reports unreadable files; copies of one image, exact and edited, and their labels; patients in more
    than one part of the official split; a small validation split; and properties of the files that are
    associated with the class: source, format, colour mode, size, brightness.

    The exit code is 1 if the splits leak.
    """
    from chestxray.data.audit import audit as audit_index
    from chestxray.data.near_duplicates import mark

    recipe = _recipe(data, given)
    summary = _summary(recipe, cache)
    index = mark(summary.index, summary.pixels)
    rows = index.rows
    if "external" in rows:
        # No external test image may be among the training images, with or without an official split.
        own = rows["split"].replace("", "train").where(rows["split"] != "test", "")
        rows = rows.assign(split=own.where(~rows["external"], "test"))
    index = index.replace(rows)
    found = audit_index(index, index.notes)
    drawn = []
    if output:
        from chestxray.report.figures.pairs import write_contact_sheets

        drawn = write_contact_sheets(found, index, summary.pixels, output)
    if as_json:
        click.echo(json.dumps(found.to_json() | {"leaks": found.leaks}, indent=2, ensure_ascii=False))
    else:
        _print_audit(found, len(rows))
        for path in drawn:
            click.echo(f"Figure: {path}")
    return 1 if found.leaks else 0


@command.command()
@click.argument("data", nargs=-1, required=True)
@_takes_data()
@execution_options
def prepare(
    data: tuple[str, ...],
    cache: Path | None,
    executor: str | None,
    workers: int | None,
    part_memory: float | None,
    **given: Any,
) -> None:
    """Download DATA and decode it to --image-size, so that runs of that size start at once.

    With --executor ray the nodes of a cluster decode what they see by the same paths, and this command writes it to
    its cache. Without, all processors of this machine decode.
    """
    from chestxray.data import sources
    from chestxray.data.decoded import decode
    from chestxray.execution.executor import chosen
    from chestxray.storage import cache as caches

    where = chosen(executor, workers, part_memory)
    recipe = _recipe(data, given)
    root = caches.root(cache)
    index = sources.load_index(recipe, root)
    assert recipe.image_size is not None
    made = decode(index, recipe.image_size, recipe.fit, root, max_pixels=recipe.max_pixels, executor=where)
    bad = int((made.facts["unreadable"] != "").sum())
    click.echo(f"{len(index):,} images of {index.name}, {bad} of them unreadable: {made.folder}")


@command.command()
@click.argument("data", nargs=-1, required=True)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(["tfds", "folder", "npz"]), required=True, help="Output format.")
@_takes_data(*_SPLIT)
def export(data: tuple[str, ...], folder: Path, form: Any, cache: Path | None, **given: Any) -> None:
    """Write DATA, audited, split and decoded, to a new FOLDER for use in other programs."""
    from chestxray import workflow
    from chestxray.data.data_export import export as export_index
    from chestxray.storage import cache as caches

    prepared = workflow.prepare(_recipe(data, given), caches.root(cache), workflow.Clock())
    written = export_index(prepared.index, prepared.pixels, form, folder)
    left_out = len(prepared.index) - written
    click.echo(f"{written:,} images written to {folder} ({form}); {left_out} left out.")


def _recipe(data: tuple[str, ...], given: dict[str, Any]) -> Recipe:
    from chestxray.errors import require
    from chestxray.recipe import Recipe

    # Said before anything is drawn or downloaded.
    require("`chestxray data`", "matplotlib", "pyarrow")
    changes = {name: value for name, value in given.items() if value is not None and value != ()}
    return Recipe().replace(**({"image_size": SIZE} | changes | {"data": data}))


def _summary(recipe: Recipe, cache: Path | None) -> Summary:
    from chestxray.data import sources
    from chestxray.data.decoded import decode
    from chestxray.report.data_summary import summarise
    from chestxray.storage import cache as caches

    root = caches.root(cache)
    index = sources.load_index(recipe, root)
    assert recipe.image_size is not None
    return summarise(index, decode(index, recipe.image_size, recipe.fit, root, max_pixels=recipe.max_pixels))


def _print_summary(summary: Summary) -> None:
    facts = summary.to_json()
    of_findings = facts["task"] == "findings"
    what = f", {len(facts['classes'])} findings" if of_findings else f" of {len(facts['classes'])} classes"
    click.echo(f"{facts['name']}: {facts['images']:,} images{what}")
    several = len(summary.sources().columns) > 1
    if of_findings:
        _states("split", facts["findings"])
        if several:
            _states("source", facts["findings_by_source"])
    else:
        _frame("images by class and split", summary.counts())
        if several:
            _frame("images by class and source", summary.sources())
    known = facts["patients"]
    if known["patients"]:
        unknown = known["images_of_unknown_patients"]
        click.echo(
            f"Patients: {known['patients']:,} known, of {facts['images'] - unknown:,} images; "
            f"one has up to {known['most_images']}." + (f" Not known: those of {unknown:,} images." if unknown else "")
        )
    else:
        click.echo("Patients: unknown (--patient-pattern finds them in file names).")
    for name in ("width", "height"):
        if facts[name]:
            click.echo("{}: {smallest:,} to {largest:,} pixels, median {median:,}".format(name.title(), **facts[name]))
    click.echo("Modes: " + ", ".join(f"{mode} {number:,}" for mode, number in facts["modes"].items()))
    click.echo("Formats: " + ", ".join(f"{kind} {number:,}" for kind, number in facts["formats"].items()))
    click.echo(f"Images with an exact copy: {facts['exact_duplicates']:,}")
    _listed("Unreadable", [f"{item['path']}: {item['reason']}" for item in facts["unreadable"]])
    for name in ("licence", "citation"):
        if facts[name]:
            click.echo(f"{name.title()}: {facts[name]}")
    for note in facts["notes"]:
        click.echo(f"Note: {note}")


def _states(by: str, counts: dict[str, dict[str, dict[str, int]]]) -> None:
    """Print the number of images by finding, split or source, and state; states that no finding has are left out."""
    of_each = [states for parts in counts.values() for states in parts.values()]
    said = [word for word in next(iter(of_each)) if word == "present" or any(states[word] for states in of_each)]
    rows = [
        (name, *(" / ".join(f"{states[word]:,}" for word in said) for states in parts.values()))
        for name, parts in counts.items()
    ]
    table((f"images by {by}: {' / '.join(said)}", *next(iter(counts.values()))), rows)


def _print_audit(found: Audit, images: int) -> None:
    rows = [(item.severity, item.kind, f"{item.count:,}", item.sentence) for item in found.findings]
    click.echo(f"{images:,} images, {len(rows) or 'no'} kinds of findings")
    if rows:
        table(("severity", "finding", "number", "what it means"), rows)
    _listed("Unreadable", [f"{path}: {reason}" for path, reason in found.unreadable])
    _listed("Copies on both sides", [" = ".join(group) for group in found.duplicates_across_splits])
    _listed("Near copies on both sides", [" ~ ".join(group) for group in found.near_across_splits])
    _listed(
        "Films to look at, perhaps of one person under two numbers",
        [f"{' ~ '.join(pair['paths'])} ({pair['correlation']:.2f})" for pair in found.look_alikes],
    )
    _listed(
        "Different labels",
        [" = ".join(f"{path} ({label})" for path, label in item["labels"].items()) for item in found.conflicting],
    )
    _listed("Labels that contradict each other", [f"{i['path']}: {i['labels']}" for i in found.contradictions])
    _listed(
        "Patients on both sides",
        [
            f"{item['patient']} of {item['source']}: {', '.join(item['splits'])}"
            for item in found.patients_across_splits
        ],
    )
    if found.near:
        click.echo(f"Near copies: look at them with --output FOLDER. {found.false_alarms}")
    for note in found.notes:
        click.echo(f"Note: {note}")


def _listed(title: str, lines: list[str], most: int = 10) -> None:
    if lines:
        click.echo(f"{title}:")
    for line in lines[:most]:
        click.echo(f"  {line}")
    if len(lines) > most:
        click.echo(f"  ... and {len(lines) - most:,} more (--json lists them all)")


def _frame(title: str, counts: pd.DataFrame) -> None:
    rows = [(str(label), *(f"{value:,}" for value in counts.loc[label])) for label in counts.index]
    table((title, *map(str, counts.columns)), rows)
