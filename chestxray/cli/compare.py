"""`chestxray compare`: compares several models on the same test images."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chestxray import recipe_files
from chestxray.cli.options import execution_options, recipe_from, some_options
from chestxray.cli.places import CACHE, READ, WRITE
from chestxray.cli.resume_hint import repeatable
from chestxray.errors import InputError
from chestxray.execution.executor import Executor, chosen
from chestxray.models.startup import require_tensorflow
from chestxray.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chestxray.evaluation.paired.comparison_result import Comparison
    from chestxray.studies.candidates import Candidate
    from chestxray.studies.compared import Compared, FindingsCompared
    from chestxray.studies.map_agreement import MapAgreement

log = logging.getLogger("chestxray")

#: Fields of `Recipe` that have no option here; --metric is the figure to compare by.
_WITHOUT_OPTION = ("model", "metric")
_OPTIONS = tuple(field.name for field in dataclasses.fields(Recipe) if field.name not in _WITHOUT_OPTION)
#: Fields of `Recipe` that may be given for finished runs.
_OF_RUNS = ("positive", "replicates", "map_checks")


@click.command(name="compare", context_settings={"show_default": False})
@click.argument("runs", nargs=-1, type=READ, metavar="[RUN]...")
@click.option("--model", "models", multiple=True, help="Architecture to train and compare; given once for each.")
@click.option(
    "--metric",
    default="auroc",
    show_default=True,
    help="Figure to compare by, one of ours or a plugin's.",
)
@click.option(
    "--margin", type=float, help="Margin for tests of non-inferiority and equivalence: how much worse a model may be."
)
@click.option("--seeds", type=int, help="Trainings of each model, each with a seed of its own [default: 1].")
@click.option(
    "--recipe",
    "recipe_name",
    metavar="NAME|FILE",
    help="A recipe of `chestxray recipes` or a TOML file, for all models; it may list the models.",
)
@some_options(*_OPTIONS)
@click.option("--output", type=WRITE, help="Folder [default: below comparisons/].")
@click.option("--overwrite", is_flag=True, help="Train finished parts anew.")
@execution_options
@click.option("--cache", type=CACHE, help="Cache folder [default: $CHESTXRAY_CACHE].")
def command(
    runs: tuple[Path, ...],
    models: tuple[str, ...],
    metric: str,
    margin: float | None,
    seeds: int | None,
    recipe_name: str | None,
    output: Path | None,
    overwrite: bool,
    cache: Path | None,
    executor: str | None,
    workers: int | None,
    part_memory: float | None,
    **given: Any,
) -> None:
    """Compare models on the same test images: which of them differ, and by how much.

    Finished runs, ensembles and external evaluations, if their tests are of the same images:

    \b
        chestxray compare runs/a runs/b runs/c
        chestxray compare runs/a runs/b --metric accuracy --output comparisons/mine
        chestxray compare runs/small runs/large --margin 0.02
        chestxray compare runs/a runs/b --map-checks quick

    Or models to train on the same splits, with a separate training for each fold and each seed. To continue
    after an interruption, repeat the command; finished trainings are not repeated:

    \b
        chestxray compare --model vgg16 --model resnet18 --data folder:xrays
        chestxray compare --model deep_cnn --model resnet18 --data kermany --seeds 3
        chestxray compare --model deep_cnn --model resnet18 --data npz:films.npz --folds 5
        chestxray compare --recipe seven-models
        chestxray compare --model deep_cnn --model resnet18 --data kermany --folds 5 --executor local --workers 4

    Two models are reported as different only if a paired test, corrected for the number of pairs, says so. Models of
    findings are compared by the mean over findings, and in each finding, corrected for all findings and pairs.
    With heat maps that are checked, those of all models are compared for 24 test images; of finished runs only where
    --map-checks quick or all is given.
    Open comparison.html for the result; comparison.csv, pairs.csv and comparison.json hold the numbers.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    _check(metric, margin)
    changes = {name: value for name, value in given.items() if value not in (None, ())}
    if runs:
        extra = [name for name in changes if name not in _OF_RUNS]
        said: dict[str, Any] = {
            "model": models,
            "seeds": seeds,
            "recipe": recipe_name,
            "overwrite": overwrite,
        }
        checked = changes.get("map_checks", "none") != "none"
        said |= {} if checked else {"cache": cache}
        said |= {"executor": executor, "workers": workers, "part_memory": part_memory}
        extra += [name for name, value in said.items() if value]
        if extra:
            raise InputError(
                "Finished runs are compared as they are; beside them go --metric, --margin, --output, --positive, "
                "--replicates and --map-checks alone, and with checks of maps --cache. "
                f"Received: {', '.join(extra)}."
            )
        _compare_runs(runs, metric, margin, changes, output, cache)
        return
    models = models or (recipe_files.read(recipe_name)[1] if recipe_name else ())
    if len(models) < 2:
        raise InputError(
            "Name two finished runs or more, or two models or more to train, each with --model. "
            f"Received: {', '.join(models) or 'neither'}."
        )
    where = chosen(executor, workers, part_memory)
    require_tensorflow("Training")
    with repeatable():
        _train_and_compare(
            models, metric, margin, 1 if seeds is None else seeds, recipe_name, given, output, overwrite, cache, where
        )


def _compare_runs(
    runs: tuple[Path, ...],
    metric: str,
    margin: float | None,
    changes: dict[str, Any],
    output: Path | None,
    cache: Path | None,
) -> None:
    from chestxray.runs import output_folder
    from chestxray.studies import candidates

    if len(runs) < 2:
        raise InputError(f"A comparison needs two runs or more. Received: {runs[0]}.")
    found = candidates.of_runs(runs, task=None)
    places = "\n".join(str(run.folder.absolute()) for candidate in found.values() for run in candidate.runs)
    digest = hashlib.blake2b(places.encode(), digest_size=4).hexdigest()
    folder = output or Path("comparisons") / f"{output_folder.slug(*found)[:70]}-{digest}"
    positive = changes.get("positive") or candidates.positive_of(found)
    replicates, checked = changes.get("replicates", Recipe().replicates), changes.get("map_checks", "none") != "none"
    _report(found, metric, margin, positive, replicates, folder, cache, checked=checked)


def _train_and_compare(
    models: tuple[str, ...],
    metric: str,
    margin: float | None,
    seeds: int,
    recipe_name: str | None,
    given: dict[str, Any],
    output: Path | None,
    overwrite: bool,
    cache: Path | None,
    executor: Executor | None,
) -> None:
    from chestxray.data import sources
    from chestxray.storage import cache as caches
    from chestxray.studies import candidates, study

    recipe, demonstration = recipe_from(recipe_name, given)
    if demonstration:
        log.info("No --data: a demonstration on drawn phantoms, which are no radiographs.")
    # Said before the training, which may take hours.
    task = sources.load_index(sources.absolute(recipe), caches.root(cache)).task
    candidates.check_comparison(metric, task, recipe.positive)
    recipes = [recipe.replace(model=model) for model in models]
    made = study.run(recipes, output, cache, seeds=seeds, overwrite=overwrite, executor=executor)
    found = candidates.of_study(made)
    positive, checked = candidates.positive_of(found), recipe.heatmaps > 0 and recipe.map_checks != "none"
    _report(found, metric, margin, positive, recipe.replicates, made.folder, cache, checked=checked)


def _report(
    found: dict[str, Candidate],
    metric: str,
    margin: float | None,
    positive: str | None,
    replicates: int,
    folder: Path,
    cache: Path | None,
    *,
    checked: bool,
) -> None:
    """Compare, print and write; with `checked` the heat maps too."""
    from chestxray.evaluation.paired.findings_comparison_result import FindingsComparison
    from chestxray.storage import cache as caches
    from chestxray.studies import candidates, comparison_page, map_agreement
    from chestxray.studies.compared import Compared, FindingsCompared

    comparison_page.check_folder(folder)
    tests = {name: candidate.tests for name, candidate in found.items()}
    comparison = candidates.compare_tests(tests, metric, positive=positive, margin=margin, replicates=replicates)
    data = next(iter(found.values())).runs[0].environment["data"]["name"]
    maps = None
    if checked:
        log.info("Comparing the heat maps ...")
        maps = map_agreement.agreement(found, caches.root(cache))
    if isinstance(comparison, FindingsComparison):
        of_findings = FindingsCompared(comparison, found, data, maps)
        page = comparison_page.write_findings(of_findings, folder)
        _print_findings(of_findings)
    else:
        compared = Compared(comparison, found, data, maps)
        page = comparison_page.write(compared, folder)
        _print(compared)
    if maps is not None:
        _print_agreement(maps)
    click.echo(f"Page: {page}")
    click.echo("Research use only. Not a medical device; not for diagnosis.")


def _print(compared: Compared) -> None:
    from chestxray.evaluation.shortcuts.verdict import short
    from chestxray.report.formatting import title
    from chestxray.studies.comparison_verdict import cautions, verdict

    controls = {name: short(candidate.controls) for name, candidate in compared.candidates.items()}
    _print_models(compared, title(compared.comparison.metric), controls)
    _print_pairs(compared.comparison)
    click.echo("\n" + " ".join([*verdict(compared), *cautions(compared.candidates)]))


def _print_findings(compared: FindingsCompared) -> None:
    from chestxray.cli.output import quoted, table
    from chestxray.report.formatting import title
    from chestxray.studies.comparison_verdict import cautions
    from chestxray.studies.findings_verdict import verdict

    comparison = compared.comparison
    named = title(comparison.metric)
    _print_models(compared.mean, f"mean {named} of {len(comparison.findings)}", {})
    _print_pairs(comparison.mean)
    models = [standing.model for standing in comparison.mean.standings]
    rows = []
    for name, one in comparison.findings.items():
        of = {standing.model: standing for standing in one.standings}
        rows.append([name, str(one.rows), *(f"{quoted(of[m].figure.to_json())} {of[m].letters}" for m in models)])
    click.echo(f"\nEach finding: {named} (95% interval) and letters, corrected for {comparison.tests} tests")
    table(["finding", "images", *models], rows)
    click.echo("\n" + " ".join([*verdict(compared), *cautions(compared.candidates)]))


def _print_agreement(maps: MapAgreement) -> None:
    from chestxray.report.map_checks_wording import agreement

    said = agreement(maps.to_json())
    click.echo("\nHeat maps:" + (f" not compared. {said['reason']}" if said["reason"] else f" {said['method']}"))
    for title, verdict, sentence in said["rows"]:
        click.echo(f"{title}: {verdict}. {sentence}")
    for sentence in said["left_out"]:
        click.echo(sentence)
    click.echo()


def _print_models(compared: Compared, named: str, controls: Mapping[str, str]) -> None:
    """Print the models with their figure, which is `named`, and where there are any the words on their `controls`."""
    from chestxray.cli.output import quoted, table
    from chestxray.evaluation.paired.letters import caption
    from chestxray.report.formatting import duration
    from chestxray.studies.compared import repeats_text

    comparison = compared.comparison
    click.echo(f"\n{compared.data}: {comparison.rows} test images of {comparison.patients}")
    repeated = any(len(standing.repeats) > 1 for standing in comparison.standings)
    columns = ["model", f"{named} (95% interval)", "letters", *(["controls"] if controls else [])]
    columns += ["parameters", "training", "images/s", "trainings", *(["single trainings"] if repeated else [])]
    rows = [
        [
            item["model"],
            quoted(item),
            item["letters"],
            *([controls[item["model"]]] if controls else []),
            "-" if item["parameters"] is None else f"{item['parameters']:,}",
            "-" if item["train_seconds"] is None else duration(item["train_seconds"]),
            "-"
            if item["images_per_second"] is None
            else f"{item['images_per_second']:,.{0 if item['images_per_second'] >= 100 else 1}f}",
            str(item["trainings"]),
        ]
        + ([repeats_text(item["repeats"])] if repeated else [])
        for item in compared.models
    ]
    table(columns, rows)
    click.echo(f"{caption(item['letters'] for item in compared.models)}\n")


def _print_pairs(comparison: Comparison) -> None:
    from chestxray.cli.output import quoted, table
    from chestxray.report.formatting import p_text

    columns = ["first", "second", "difference (95% interval)", "p", "p (Holm)", "test"]
    lines = [
        [p.first, p.second, quoted(p.difference.to_json()), p_text(p.p), p_text(p.p_holm), p.test]
        for p in comparison.pairs
    ]
    if comparison.margin is not None:
        columns.append(f"within {comparison.margin:g}")
        lines = [
            [*line, pair.margin.finding if pair.margin else "-"]
            for line, pair in zip(lines, comparison.pairs, strict=True)
        ]
    table(columns, lines)


def _check(metric: str, margin: float | None) -> None:
    """Check the arguments of the comparison before runs are read, or models trained."""
    from chestxray.evaluation.paired.comparison import check_margin
    from chestxray.evaluation.published_metrics import of_name

    of_name(metric)
    check_margin(margin)
