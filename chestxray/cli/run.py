"""`chestxray run`: trains, evaluates, explains and reports one model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chestxray import recipe_files
from chestxray.cli.closing import close
from chestxray.cli.options import execution_options, recipe_from, recipe_options
from chestxray.cli.output import plain, quoted, table
from chestxray.cli.places import CACHE, CHANGE, WRITE
from chestxray.cli.resume_hint import repeatable
from chestxray.errors import InputError
from chestxray.execution.executor import Executor, chosen
from chestxray.models import backend as backends
from chestxray.models import hosts as joined
from chestxray.models.startup import require_backend

if TYPE_CHECKING:
    from chestxray.recipe import Recipe
    from chestxray.runs.run_folder import Run

log = logging.getLogger("chestxray")

HEADLINE = ("auroc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1_macro", "mcc", "ece")


@click.command(name="run", context_settings={"show_default": False})
@recipe_options
@click.option("--output", type=WRITE, help="The run's folder [default: below runs/].")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the output folder.")
@click.option("--resume", type=CHANGE, metavar="RUN", help="Continue an interrupted run.")
@execution_options
@click.option("--cache", type=CACHE, help="Cache folder [default: $CHESTXRAY_CACHE].")
@click.option("--tensorboard", is_flag=True, help="Log the run for TensorBoard, in its folder.")
@click.option("--mlflow", is_flag=True, help="Log the run to MLflow, at $MLFLOW_TRACKING_URI.")
@click.option("--wandb", is_flag=True, help="Log the run to Weights & Biases, as $WANDB_MODE and others say.")
@click.option("--backend", metavar="NAME", help="tensorflow or jax [default: $KERAS_BACKEND, or tensorflow].")
@click.option("--hosts", metavar="N|auto", help="Machines that share the training, with --backend jax [default: 1].")
@click.option("--host-index", type=int, help="The number of this one of them, from 0; host 0 writes the run's folder.")
@click.option("--coordinator", metavar="HOST:PORT", help="An address of host 0 that the others reach.")
def command(
    recipe_name: str | None,
    output: Path | None,
    overwrite: bool,
    resume: Path | None,
    cache: Path | None,
    executor: str | None,
    workers: int | None,
    part_memory: float | None,
    tensorboard: bool,
    mlflow: bool,
    wandb: bool,
    backend: str | None,
    hosts: str | None,
    host_index: int | None,
    coordinator: str | None,
    **given: Any,
) -> None:
    """Train, evaluate, explain and report one model.

    Without --data it uses synthetic phantom images, as a demonstration of a few minutes:

    \b
        chestxray run --model inceptionv3
        chestxray run --model inceptionv3 --data folder:xrays --patient-pattern '(person\\d+)_'
        chestxray run --model deep_cnn --data folder:xrays --folds 5
        chestxray run --recipe resnet18-keremberke
        chestxray run --resume runs/20260102-030405-inceptionv3-xrays

    With --folds or --split source, it trains a model for each part and pools their tests; repeat the
    command to continue with the missing parts.

    All results are written to the run's folder; open report.html first.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    where = chosen(executor, workers, part_memory)
    wanted = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}
    trackers = [name for name, asked in wanted.items() if asked]
    backends.use(backend)
    shared = joined.of_options(hosts, host_index, coordinator)
    if resume is not None:
        _refuse_beside_resume(recipe_name, output, given | {"executor": executor, "workers": workers})
        from chestxray import workflow
        from chestxray.runs.trackers.tracking import tracked

        with _shared(shared), tracked([] if _another(shared) else trackers) as tracking:
            run = workflow.resume(resume, cache=cache, tracking=tracking)
        if not _another(shared):
            summarise(run)
        return
    require_backend("Training")
    recipe, demonstration = recipe_from(recipe_name, given)
    if recipe_name is not None and not recipe.model and (models := recipe_files.read(recipe_name)[1]):
        raise InputError(
            f"The recipe {recipe_name} is of several models. Allowed: `chestxray compare --recipe {recipe_name}`, or "
            f"one of them with --model: {', '.join(models)}."
        )
    if demonstration and recipe.model:
        log.info("No --data: a demonstration on drawn phantoms, which are no radiographs.")
    if recipe.parts and shared is not None:
        raise InputError(
            "Several hosts share one training, and folds are several. Allowed: one fold a command (--fold)."
        )
    if recipe.parts:
        if trackers:
            raise InputError(
                f"--{trackers[0]} logs one training, and this recipe is of several. Allowed: one of them, with --fold "
                "or --held-out."
            )
        _run_parts(recipe, output, cache, overwrite=overwrite, executor=where)
        return
    if where is not None:
        raise InputError(
            "--executor, --workers and --part-memory are for a run of several parts: with --folds and no --fold, or "
            "with --split source and no --held-out. This is one training."
        )
    log.info("Reading the data ...")
    from chestxray import workflow
    from chestxray.runs.trackers.tracking import tracked

    with _shared(shared), tracked([] if _another(shared) else trackers) as tracking:
        run = workflow.run(recipe, output=output, cache=cache, overwrite=overwrite, tracking=tracking)
    if not _another(shared):
        summarise(run)


def _another(shared: joined.Hosts | None) -> bool:
    """Whether this process is a host other than 0, which alone writes and reports."""
    return shared is not None and shared.index > 0


@contextmanager
def _shared(shared: joined.Hosts | None) -> Iterator[None]:
    """Within the block this process is one of the hosts; all but host 0 log warnings alone."""
    with joined.joined(shared):
        if _another(shared):
            log.setLevel(logging.WARNING)
        yield
    if shared is not None and shared.index:
        click.echo(f"Host {shared.index}: the training is finished; host 0 evaluates it.")


def _run_parts(
    recipe: Recipe, output: Path | None, cache: Path | None, *, overwrite: bool, executor: Executor | None
) -> None:
    """Train every fold, or hold out every source in turn, skipping finished parts, and print the pooled result."""
    from chestxray.studies import cross_validation, study

    with repeatable():
        made = study.run([recipe], output, cache, overwrite=overwrite, below="runs", executor=executor)
        pooled = cross_validation.pool(made, cache)
    names = _OF_FINDINGS[:3] if pooled.task == "findings" else HEADLINE[:3]
    rows = [
        (part.label, str(run.metrics["rows"]), *(quoted(run.metrics["test"][name]) for name in names))
        for part, run in zip(made.parts, made.runs(recipe.model), strict=True)
    ]
    table(("part", "images", *(name.replace("_", " ") for name in names)), rows)
    summarise(pooled)


def _refuse_beside_resume(recipe_name: str | None, output: Path | None, given: dict[str, Any]) -> None:
    extra = [name for name, value in given.items() if value not in (None, ())]
    extra += [name for name, value in (("recipe", recipe_name), ("output", output)) if value]
    if extra:
        raise InputError(
            f"--resume goes on with the run's own recipe and takes no other option. Received: {', '.join(extra)}."
        )


def summarise(run: Run) -> None:
    """Print the headline figures with intervals, the limitations and the path of the report."""
    from chestxray.data.index import Patients

    if run.task == "findings":
        _summarise_findings(run)
        return
    by_source = run.by_source
    parts = {"all test images": run.metrics, **(by_source if len(by_source) > 1 else {})}
    columns = [f"{name} (95% interval)" if len(parts) == 1 else name for name in parts]
    rows = []
    for name in (*HEADLINE, *run.metrics.get("published", {})):
        figures = [part["test"][name] for part in parts.values()]
        if figures[0]["value"] is not None:
            rows.append([name.replace("_", " "), *map(quoted, figures)])
    for name in ("slope", "intercept"):
        measured = [(part.get("calibration") or {}).get(name) or {"value": None} for part in parts.values()]
        if measured[0]["value"] is not None:
            rows.append([f"calibration {name}", *map(quoted, measured)])
    metrics = run.metrics
    whom = f"{metrics['rows']} test images of {Patients.from_json(metrics)}"
    click.echo(plain(f"\n{run.recipe.model} on {run.environment['data']['name']}: {whom}"))
    table(["figure", *columns], rows)
    if metrics["positive"]:
        click.echo(plain(f"Sensitivity speaks of {metrics['positive']}."))
    close(run)


#: The figures of each finding in the table that a run ends with.
_OF_FINDINGS = ("auroc", "auprc", "sensitivity", "specificity")


def _summarise_findings(run: Run) -> None:
    """Print the mean figures and those of each finding with intervals, what they mean and the path of the report."""
    from chestxray._version import RESEARCH_ONLY
    from chestxray.report.finding_sentences import summary, whole_cautions

    found = run.findings_evaluation
    click.echo(plain(f"\n{run.recipe.model} on {run.data_name}: {found.rows:,} test images of {found.patients}"))
    rows = [[f"mean of {len(found.scored)}", "", *(quoted(found.test[name].to_json()) for name in _OF_FINDINGS)]]
    for name, one in found.findings.items():
        figures = (
            [quoted(one.test[figure].to_json()) for figure in _OF_FINDINGS] if one.test else ["not scored", *[""] * 3]
        )
        rows.append([name, f"{one.known.positive:,} of {one.known.rows:,}", *figures])
    table(["finding", "present", *_OF_FINDINGS], rows if found.scored else rows[1:])
    for sentence in summary(run)[1:]:
        click.echo(plain(sentence))
    for caution in whole_cautions(run):
        click.echo(plain(f"! {caution}"))
    click.echo(plain(f"Report: {run.report}"))
    click.echo(RESEARCH_ONLY)
