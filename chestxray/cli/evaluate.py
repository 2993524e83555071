"""`chestxray evaluate`: tests a finished run on other data, such as a second hospital's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chestxray.cli.closing import close
from chestxray.cli.options import some_options
from chestxray.cli.places import CACHE, CHANGE_MODEL, WRITE
from chestxray.errors import InputError

if TYPE_CHECKING:
    from chestxray.runs.run_folder import Run

log = logging.getLogger("chestxray")

_DATA = (
    "path", "data_option", "patient_pattern", "label_pattern", "map", "drop", "uncertain", "view", "on_leak",
    "max_unreadable",
)  # fmt: skip
_CHOICES = ("by", "abstain", "sensitivity", "confidence", "positive", "prevalence", "replicates", "metric")
_MAPS = ("explain", "heatmaps", "map_checks", "masks")


@click.command(name="evaluate")
@click.argument("run", type=CHANGE_MODEL, metavar="RUN|PLUGIN:WEIGHTS")
@click.option("--data", multiple=True, help="Other data, as of `chestxray run`; without it the run's own test.")
@some_options(*_DATA, *_CHOICES, *_MAPS)
@click.option(
    "--part",
    type=click.Choice(["all", "train", "validation", "test"]),
    default="all",
    show_default=True,
    help="Rows of one official split of the other data.",
)
@click.option(
    "--output", type=WRITE, help="Folder [default: external/NAME-HASH in the run's; of a ready model, below runs/]."
)
@click.option("--overwrite", is_flag=True, help="Replace what is in --output.")
@click.option("--cache", type=CACHE, help="Cache folder [default: $CHESTXRAY_CACHE].")
def command(
    run: Path, data: tuple[str, ...], part: str, output: Path | None, overwrite: bool, cache: Path | None, **given: Any
) -> None:
    """Test RUN on other data and report the loss in performance, or evaluate its own test anew.

    \b
        chestxray evaluate runs/x --data folder:second-hospital --map viral=PNEUMONIA --drop covid19
        chestxray evaluate runs/x --data manifest:other.csv --by sex --by age
        chestxray evaluate torchxrayvision:densenet121-res224-all --data folder:mine
        chestxray evaluate runs/x --map-checks all --explain hirescam
        chestxray evaluate runs/x --abstain 0.9 --sensitivity 0.95 --confidence 0.95 --prevalence 0.02

    Threshold, calibration and abstention are those chosen on the run's validation images; nothing is
    fitted to the other data. The other data are searched for RUN's training and validation images,
    including edited copies, and for their patients; --on-leak sets what happens to those found.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    log.info("Opening %s ...", run)
    from chestxray.recipe import Recipe
    from chestxray.runs import run_folder
    from chestxray.storage import cache as caches
    from chestxray.studies import external_validation

    changes = {name: value for name, value in given.items() if value not in (None, ())}
    trained = run_folder.open_trained(run, task=None)
    if data:
        maps = {name: changes.pop(name) for name in _MAPS if name in changes}
        recipe = Recipe(data=data).replace(**({"by": trained.recipe.by} | changes))
        found = external_validation.evaluate_on(
            trained,
            recipe,
            caches.root(cache),
            part=part,  # type: ignore[arg-type]  # of click.Choice
            output=output,
            overwrite=overwrite,
            maps=maps,
        )
        if not trained.published:  # which has no test of its own to compare with
            (_print_gaps_of_findings if found.task == "findings" else _print_gap)(found)
    else:
        if extra := [name for name in (*_DATA, "part", "output") if name in changes]:
            raise InputError(f"{', '.join(extra)}: for other data; name some with --data.")
        if part != "all" or output is not None:
            raise InputError("part and output are for other data; name some with --data.")
        found = external_validation.evaluate_again(trained, changes, caches.root(cache))
        if found.task == "classes":
            _print_parts(found)
    if found.task == "findings":
        from chestxray.cli.run import summarise

        summarise(found)
    else:
        close(found)


def _print_gaps_of_findings(found: Run) -> None:
    from chestxray.cli.output import plain, table
    from chestxray.report.formatting import p_text
    from chestxray.storage import result_files

    compared = result_files.read(found.folder / "generalisation_gap.json")
    _print_sides(compared)
    mean = compared["figures"].get("auroc")
    rows = [(f"mean of {len(compared['findings'])}", *_cells(mean), "")] if mean else []
    rows += [(name, *_cells(item), p_text(item["p_holm"])) for name, item in compared["findings"].items()]
    if rows:
        table(("AUROC", *_GAP_COLUMNS, "p, corrected over findings"), rows)
    for name, why in compared["not_compared"].items():
        click.echo(plain(f"{name} is not compared: {why}."))
    click.echo(_HOW)


_GAP_COLUMNS = ("internal", "external", "generalisation gap (95% interval)")
_HOW = "An image of unknown patient counts as a patient of its own. Generalisation gap: internal minus external."


def _cells(item: Mapping[str, Any]) -> tuple[str, ...]:
    from chestxray.cli.output import quoted

    return tuple(quoted(item[name]) for name in ("internal", "external", "gap"))


def _print_sides(compared: Mapping[str, Any]) -> None:
    from chestxray.cli.output import plain
    from chestxray.data.index import Patients

    inside, outside = compared["internal"], compared["external"]
    of = f"{inside['rows']:,} test images of {Patients.from_json(inside)}"
    click.echo(plain(f"\nTrained and tested on {inside['name']} ({of})"))
    click.echo(plain(f"tested on {outside['name']} ({outside['rows']:,} images of {Patients.from_json(outside)})"))


def _print_gap(found: Run) -> None:
    from chestxray.cli.output import table
    from chestxray.storage import result_files

    compared = result_files.read(found.folder / "generalisation_gap.json")
    rows = [
        (name.replace("_", " "), *_cells(item))
        for name, item in compared["figures"].items()
        if item["external"]["value"] is not None
    ]
    _print_sides(compared)
    table(("figure", *_GAP_COLUMNS), rows)
    click.echo(_HOW)
    _print_parts(found)


def _print_parts(found: Run) -> None:
    from chestxray.cli.output import quoted, table
    from chestxray.storage import result_files

    parts: dict[str, Any] = {"all test images": found.metrics}
    for name in ("by_source", "by_group"):
        content = result_files.read_if_any(found.folder / f"{name}.json")
        if name == "by_source":
            parts |= {f"source {key}": item for key, item in content.items()}
        else:
            parts |= {f"{column} {key}": item for column, items in content.items() for key, item in items.items()}
    names = ("auroc", "accuracy", "sensitivity", "specificity")
    rows = [
        (part, f"{item['rows']:,}", *(quoted(item["test"][name]) for name in names)) for part, item in parts.items()
    ]
    table(("", "images", *names), rows)
    path = found.folder / "abstention.json"
    if path.is_file():
        test = result_files.read(path)["test"]
        click.echo(
            f"Abstention: {quoted(test['answered'])} of the images are answered, with an accuracy of "
            f"{quoted(test['accuracy_of_answers'])}; the sets hold the true class for {quoted(test['coverage'])}."
        )
