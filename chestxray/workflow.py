"""The whole flow of a run, in order. Start reading here.

recipe -> source -> index -> decoded -> split -> audit -> model -> training -> holdout (validation
decides, the test is predicted) -> results -> controls -> explanation -> report

Images are decoded before they are audited and split, because both need to know which files cannot
be read and which have the same pixels.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chestxray import registry
from chestxray.data import near_duplicates, sources
from chestxray.data.audit import Audit, audit, settle
from chestxray.data.data_changes import require_same
from chestxray.data.decoded import decode, name_of, readable
from chestxray.data.index import Index, Task
from chestxray.data.sources import known_sets
from chestxray.data.splitting import split
from chestxray.errors import InputError, OutputError, nearest
from chestxray.evaluation.decision import finding_selection, out_of_distribution, selection
from chestxray.evaluation.decision.finding_rule import FindingDecision, Rule
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.subgroups import groups
from chestxray.models import backend, hosts, interrupts, lung_segmenter, startup
from chestxray.plugin import ModelPlugin
from chestxray.progress import show_if_interactive
from chestxray.recipe import LOSSES, Recipe
from chestxray.runs import output_folder, provenance, run_folder
from chestxray.runs.results import assess
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches
from chestxray.storage import checksums, remote
from chestxray.storage.files import explained, remove_parts, replacing, write_json, write_text

if TYPE_CHECKING:
    from chestxray.evaluation.shortcuts import lungs
    from chestxray.models.assembly import Built
    from chestxray.runs.holdout import Table, Trial
    from chestxray.runs.trackers.tracking import Tracking

log = logging.getLogger(__name__)

#: The files that an interrupted run goes on from, whose checksums are written when it begins.
_OF_THE_BEGINNING = (run_folder.RECIPE, run_folder.INDEX)


@dataclass(frozen=True)
class Prepared:
    """Data ready for training: ``pixels``, uint8 (rows, height, width), has one image per row of ``index``.
    ``films`` are the same images whole, where ``pixels`` are cut to their lungs, at another size. ``audit`` is None if
    an interrupted run is resumed, whose folder already has its audit.
    """

    index: Index
    pixels: np.ndarray
    audit: Audit | None
    films: np.ndarray


@dataclass
class Clock:
    """Duration of each step in seconds, and the time of the start in ISO 8601."""

    started: str = field(default_factory=provenance.now)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, doing: str = "") -> Iterator[None]:
        """Measure the block as the step `name`; say first what is being done."""
        if doing:
            log.info("%s ...", doing, extra={"fields": {"step": name}})
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def run(
    recipe: Recipe,
    *,
    output: str | Path | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
    like: Index | None = None,
    tracking: Tracking | None = None,
) -> Run:
    """Train and evaluate a model as `recipe` says, and return the finished run.

    `output` is the run's folder (default: ``runs/`` with time, model and data), `cache` the cache
    folder. `like` is the index of another run; this run's data must be the same.
    `tracking` is told of the run's parameters, epochs and results.

    Raises:
        ChestXrayError: any error that a user can fix. If it occurs before training starts, no files
            are left behind; afterwards the folder holds what `resume` needs.
    """
    show_if_interactive()
    recipe, plugin, entry = resolve(recipe)
    hosts.same("recipe", recipe.to_toml())
    folder = Path(output) if output else output_folder.default_folder(recipe.model, recipe.data[0])
    with hosts.own_folder(folder) as own:
        return _run(recipe, plugin, entry, own, caches.root(cache), overwrite=overwrite, like=like, tracking=tracking)


def _run(
    recipe: Recipe,
    plugin: ModelPlugin,
    entry: registry.InstalledPlugin,
    folder: Path,
    cache: Path,
    *,
    overwrite: bool,
    like: Index | None,
    tracking: Tracking | None,
) -> Run:
    new = output_folder.create(folder, overwrite=overwrite)
    try:
        with output_folder.alone(folder):
            clock = Clock()
            prepared = prepare(recipe, cache, clock, like=like, trained_on=_trained_on(plugin, recipe))
            job = _prepare_job(recipe, plugin, entry, prepared, folder, cache, clock)
            if not new:
                output_folder.clear(folder)
            with _kept(folder):
                write_text(folder / run_folder.RECIPE, recipe.to_toml())
                checksums.write(folder, _OF_THE_BEGINNING)
                begin(prepared, folder)
                return _finish(job, tracking)
    except BaseException:
        # On an error or Ctrl-C before anything was written.
        if new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def resume(
    folder: str | Path,
    *,
    cache: str | Path | None = None,
    like: Index | None = None,
    tracking: Tracking | None = None,
) -> Run:
    """Continue an interrupted run after its last finished epoch, on the split that it started with, and return
    the finished run. `tracking` as in `run`; `like` too, used if the run was interrupted before it had a split.

    Raises:
        InputError: `folder` is not a run, its recipe was edited since the run started, or the index of a run whose
            training had started is missing.
        DataError: the data have changed since the run started.
        OutputError: another process is at work in `folder`, or it cannot be written.
    """
    show_if_interactive()
    with hosts.own_folder(Path(folder), (run_folder.RECIPE, run_folder.INDEX, run_folder.HISTORY, "state")) as path:
        if not (path / run_folder.RECIPE).is_file():
            raise InputError(f"{path} is not a run: --resume needs a folder with {run_folder.RECIPE} in it.")
        if Run(path).finished:
            log.info("The run %s is already complete.", path)
            if tracking is not None:
                # What a tracker that had failed lacks.
                tracking.begin(path)
                tracking.finish()
            return Run(path)
        with output_folder.alone(path):
            return _resume(path, caches.root(cache), like, tracking)


def _resume(path: Path, root: Path, like: Index | None, tracking: Tracking | None) -> Run:
    _require_own_recipe(path)
    recipe, plugin, entry = resolve(Recipe.read(path / run_folder.RECIPE))
    clock = Clock()
    begun = (path / run_folder.INDEX).is_file()
    if not begun and (path / "state").is_dir():
        raise InputError(
            f"{path} was trained and has lost {run_folder.INDEX}, so that its training images are unknown."
        )
    # Without an index, training had not started: the run was stopped while it wrote its first files.
    known = Run(path).index if begun else None
    if known is None:
        prepared = prepare(recipe, root, clock, like=like, trained_on=_trained_on(plugin, recipe))
    else:
        prepared = _again(known, path, recipe, root, clock)
    job = _prepare_job(recipe, plugin, entry, prepared, path, root, clock)
    with _kept(path):
        remove_parts(path)
        if not begun:
            begin(prepared, path)
        return _finish(job, tracking)


def _require_own_recipe(folder: Path) -> None:
    """Raise `InputError` if the recipe of the run in `folder` is not the one that it began with."""
    if checksums.changed(path := folder / run_folder.RECIPE):
        raise InputError(
            f"{path} has changed since the run began, whose steps would then not be of one recipe. Allowed: the file "
            f"as it was, or a new run by it as it is: chestxray run --recipe {path} --output FOLDER."
        )


def resolve(recipe: Recipe) -> tuple[Recipe, ModelPlugin, registry.InstalledPlugin]:
    """Return the recipe with image size, weights and absolute paths filled in, the model's plugin and its entry.

    Raises:
        PluginError: an unknown or broken model, metric or other method.
        InputError: an image size or weights that the architecture does not take; all checks of heat maps, but no
            heat maps; the backend is not installed.
    """
    # Said first: a model's package brings it, so that without it there is seldom a model either.
    startup.require_backend("Training")
    if not recipe.model:
        raise InputError("No model. Choose one with --model; `chestxray models` lists them.")
    if not recipe.data:
        raise InputError("No data. Choose some with --data, such as folder:PATH or phantom.")
    if recipe.map_checks == "all":  # quick is the default, which whoever wants no maps need not take back
        recipe.require_heat_maps()
    for group, method in registry.methods_of(recipe):
        registry.load_entry(group, method)
    lung_segmenter.of_recipe(recipe)
    entry = registry.find(registry.MODELS, recipe.model)
    plugin: ModelPlugin = registry.load_entry(registry.MODELS, entry)
    size = recipe.image_size or plugin.image_size
    plugin.check_image_size(recipe.model, size)
    weights = recipe.weights
    if weights == "auto":
        weights = plugin.weights[0] if plugin.weights else "none"
    if weights not in ("none", *plugin.weights) and not Path(weights).expanduser().is_file():
        offered = ", ".join(("none", *plugin.weights))
        raise InputError(f"weights of {recipe.model} must be {offered}, or a file. Received: {weights!r}.")
    if recipe.deterministic and backend.on_jax():
        raise InputError("deterministic is TensorFlow's, and JAX has no such setting. Allowed: --no-deterministic.")
    if recipe.jit_compile == "off" and backend.on_jax():
        raise InputError(
            "jit_compile off is not for JAX, which computes nothing else. Allowed: auto, on. Received: 'off'."
        )
    if recipe.probe and weights == "none":
        raise InputError(
            f"probe needs pretrained weights: without them the frozen features of {recipe.model} are random."
        )
    epochs = recipe.epochs if weights == "none" else recipe.epochs + recipe.head_epochs
    if not epochs and not recipe.probe:
        raise InputError("epochs is 0 and there are no pretrained weights: nothing would be trained.")
    if weights not in ("none", *plugin.weights):
        weights = str(Path(weights).expanduser().absolute())
    if recipe.finetune_from is not None:
        start = None if recipe.finetune_from == "all" else recipe.finetune_from
        plugin = dataclasses.replace(plugin, finetune_from=start, finetune=())
    return sources.absolute(recipe).replace(image_size=size, weights=weights), plugin, entry


def _trained_on(plugin: ModelPlugin, recipe: Recipe) -> tuple[str, ...]:
    published = plugin.published.get(recipe.weights)
    return published.trained_on if published else ()


def prepare(
    recipe: Recipe,
    cache: Path,
    clock: Clock,
    *,
    like: Index | None = None,
    trained_on: tuple[str, ...] = (),
    model: tuple[Task, tuple[str, ...]] | None = None,
) -> Prepared:
    """Read, decode, split and audit the data: everything before a model is needed. `like` as in `run`; `trained_on`
    are the sets that the published weights were trained on. `model` are the task and the outputs of one that exists
    already, of which the data need not have every one.
    """
    assert recipe.image_size is not None, "resolve() fills in the size"
    with clock.step("source"):
        if model is None:
            index = sources.load_index(recipe, cache)
        else:
            index = sources.load_index(recipe, cache, every_class=False, task=model[0]).with_classes(model[1])
    # Finds errors that evaluation would only find after hours of training.
    _check(index, recipe)
    for column in recipe.by:
        groups(index, column)
    log.info("Data: %s, %d images of %d %s.", index.name, len(index), len(index.classes), index.task)
    with clock.step("decode"):
        decoded = decode(
            index, recipe.image_size, recipe.fit, cache, max_pixels=recipe.max_pixels,
            lungs=lung_segmenter.of_recipe(recipe),
        )  # fmt: skip
    with clock.step("split and audit", "Splitting, and looking for leaks and copies"):
        index = readable(index, decoded, recipe.max_unreadable)
        if like is not None:
            allowed = "the data as they were when the first part was trained, or --overwrite to train all parts anew"
            require_same(like, index, allowed)
        # Before the split, so that a drawn split keeps copies together. In whole films: lungs that were cut out are
        # more alike from patient to patient.
        index = near_duplicates.mark(index, decoded.films)
        splits = split(index, recipe, learnt=model is None)
        seen = known_sets.seen_before(recipe, trained_on)
        notes = (*splits.notes, seen) if seen else splits.notes
        index, found = settle(splits.index, audit(splits.index, notes), recipe.on_leak, recipe.split)
    _check_promise(index, recipe)
    for note in found.notes:
        log.info("%s", note)
    if found.dropped:
        log.info("Left out of training because of leaks: %d images.", len(found.dropped))
    return Prepared(index=index, pixels=decoded.pixels, audit=found, films=decoded.films)


def _check(index: Index, recipe: Recipe) -> None:
    """Raise `InputError` for choices of `recipe` that the task of `index` does not allow."""
    if recipe.loss not in LOSSES:
        task = registry.load_plugin(registry.LOSSES, recipe.loss).task
        if task != index.task:
            raise InputError(f"The loss {recipe.loss} is for {task}; {index.name} has {index.task}.")
    if index.task == "findings":
        finding_selection.check(index.classes, recipe)
        return
    selection.check(index.classes, recipe)
    if recipe.loss == "asymmetric":
        raise InputError(
            f"loss asymmetric is for findings, of which an image may show several; {index.name} has one class an image."
        )


def _check_promise(index: Index, recipe: Recipe) -> None:
    """Raise `InputError` for a sensitivity that validation has too few patients to promise."""
    if index.task == "findings":
        places = np.flatnonzero((index.rows["split"] == "validation").to_numpy())
        unknown = np.zeros((len(places), len(index.classes)))
        finding_selection.check_promise(FindingPredictions.from_probabilities(index, unknown, places), recipe)
    else:
        selection.check_promise(Predictions(index.rows, index.classes).of("validation"), recipe)


def _again(index: Index, folder: Path, recipe: Recipe, cache: Path, clock: Clock) -> Prepared:
    """Return the data of an interrupted run with its own index, which holds the split of each image."""
    assert recipe.image_size is not None, "resolve() fills in the size"
    allowed = (
        f"the data as {folder / run_folder.INDEX} lists them (and the same --cache, where they lie in it), or a new "
        f"run of the data as they are: chestxray run --recipe {folder / run_folder.RECIPE} --output FOLDER"
    )
    with clock.step("source"):
        require_same(index, sources.load_index(recipe, cache), allowed)
    with clock.step("decode"):
        decoded = decode(
            index, recipe.image_size, recipe.fit, cache, max_pixels=recipe.max_pixels,
            lungs=lung_segmenter.of_recipe(recipe),
        )  # fmt: skip
        require_same(index, index.replace(index.rows.assign(**decoded.facts)), allowed)
    known = index.name, len(index), len(index.classes), index.task
    log.info("Data: %s, %d images of %d %s, split as the run began.", *known)
    return Prepared(index=index, pixels=decoded.pixels, audit=None, films=decoded.films)


@dataclass(frozen=True)
class Job:
    """A run whose data and model are ready and whose training can start."""

    recipe: Recipe
    plugin: ModelPlugin
    entry: registry.InstalledPlugin
    prepared: Prepared
    built: Built
    strategy: Any
    folder: Path
    cache: Path
    clock: Clock


def _prepare_job(
    recipe: Recipe,
    plugin: ModelPlugin,
    entry: registry.InstalledPlugin,
    prepared: Prepared,
    folder: Path,
    cache: Path,
    clock: Clock,
) -> Job:
    log.info("%s", _plan(recipe, prepared.index))
    log.info("Loading %s ...", backend.TITLES[backend.chosen()], extra={"fields": {"step": "load"}})
    # The backend is loaded only here, so that all earlier steps run, or fail, without waiting for it.
    startup.start()
    if recipe.deterministic:
        startup.make_deterministic(recipe.seed)
    strategy = strategy_of(recipe)
    hosts.same("images, labels and split", _in_order(prepared.index))
    with clock.step("build", "Building the network"), interrupts.deferred(), strategy.scope():
        built = build(recipe, plugin, prepared)
    return Job(recipe, plugin, entry, prepared, built, strategy, folder, cache, clock)


def strategy_of(recipe: Recipe) -> Any:
    """Return the strategy by which the devices of `recipe` share a training."""
    if backend.on_jax():
        from chestxray.models import jax_devices

        return jax_devices.strategy(recipe.devices)
    from chestxray.models import devices

    return devices.strategy(recipe.devices)


def _in_order(index: Index) -> str:
    """What of the index a training depends on, row by row: the hosts that share one take its rows by their places."""
    rows = index.rows[["pixel_hash", "label", "split"]].to_csv(index=False)
    return rows + (repr(index.targets.tobytes()) if index.task == "findings" else "")


def _plan(recipe: Recipe, index: Index) -> str:
    """What the run will do, in a sentence. How long it takes is said once the first steps were timed."""
    counts = index.rows["split"].value_counts()
    phases = [f"{_epochs(recipe.epochs)} of {recipe.model} on {counts.get('train', 0):,} images"]
    if recipe.probe:
        probed = f"a linear probe of {recipe.model} on {counts.get('train', 0):,} images"
        phases = [probed, *(phases if recipe.epochs_follow_probe else [])]
    elif recipe.weights != "none" and recipe.head_epochs:
        phases.insert(0, f"{_epochs(recipe.head_epochs)} of its head")
    steps = [f"decide on {counts.get('validation', 0):,}", f"test on {counts.get('test', 0):,}"]
    steps += ["train controls"] * recipe.controls + ["draw heat maps"] * (recipe.heatmaps > 0)
    unchecked = recipe.map_checks != "none" and not recipe.heatmaps
    maps = " Heat maps are not checked, since none is drawn (heatmaps 0)." if unchecked else ""
    return f"This run will train {' and '.join(phases)}, {', '.join(steps)} and write a report.{maps}"


def _epochs(number: int) -> str:
    return f"{number} epoch{'' if number == 1 else 's'}"


def begin(prepared: Prepared, folder: Path) -> None:
    """Write the audit and the index with the split. The index is written last: it marks that a run has begun."""
    from chestxray.report.figures.pairs import write_contact_sheets

    if hosts.index():
        return  # these files are for readers, and host 0 has them
    assert prepared.audit is not None
    write_json(folder / "audit.json", prepared.audit.to_json())
    write_contact_sheets(prepared.audit, prepared.index, prepared.films, folder / "figures")
    with replacing(folder / run_folder.INDEX) as temporary:
        prepared.index.write(temporary)
    checksums.write(folder, _OF_THE_BEGINNING)


def _finish(job: Job, tracking: Tracking | None) -> Run:
    """Train, predict, evaluate, run the controls, explain and report; return the finished run."""
    from chestxray.training import checkpoint, fit

    recipe, prepared, folder, clock = job.recipe, job.prepared, job.folder, job.clock
    if tracking is not None:
        tracking.begin(folder)
    with clock.step("train"):
        after_epoch = tracking.epochs if tracking is not None else None
        # Signals wait for the end of a batch: while a graph is built, TensorFlow would make errors of them.
        with interrupts.deferred():
            fit.train(job.built, prepared.pixels, prepared.index, recipe, folder, job.strategy, job.cache, after_epoch)
        first = hosts.index() == 0
        hosts.leave()
    if not first:
        return Run(folder)
    conclude(job)
    checkpoint.finish(folder)
    if tracking is not None:
        tracking.finish()
    return Run(folder)


def conclude(job: Job, calibrated: tuple[str, Rule] | None = None) -> Run:
    """Do what follows training: predict, evaluate, run the controls, explain and report; return the run.

    `calibrated` are the name and the rule of a model that was not trained in this run, but is calibrated by it.
    """
    from chestxray.models.assembly import save
    from chestxray.report import findings_report, html_report
    from chestxray.runs import holdout

    recipe, prepared, model, folder, clock = job.recipe, job.prepared, job.built.model, job.folder, job.clock
    source, before = calibrated or ("", None)
    with clock.step("predict", "Predicting validation and test"), interrupts.deferred():
        outcome = holdout.hold(job.built, prepared.pixels, prepared.index, recipe, job.cache, before)
        with replacing(folder / run_folder.MODEL) as temporary:
            save(model, temporary)
        outcome.predictions.write(folder / "predictions.csv")
        if outcome.distribution is not None:
            outcome.distribution.write(folder / out_of_distribution.FILE)
        checksums.write(folder, (*_OF_THE_BEGINNING, run_folder.MODEL, out_of_distribution.FILE))
    test = outcome.test
    if isinstance(test, FindingPredictions):
        _assess_findings(job, outcome)
    else:
        _assess(job, outcome)
    images = _by_path(prepared, test)
    _explain(job, outcome, trained=calibrated is None)
    facts = _model_facts(job.built, recipe) | {"images_per_second": outcome.images_per_second}
    if source:
        facts["calibrated_from"] = source
    record = provenance.describe(job.entry, job.plugin, provenance.data_of(prepared.index), facts, _devices(recipe))
    record["data"] |= {"decoded": name_of(prepared.pixels), "films": name_of(prepared.films)}
    record["methods"] = provenance.methods(recipe)
    record["deterministic"] = startup.is_deterministic()
    times = {"started": clock.started, "finished": provenance.now(), "seconds": clock.seconds}
    write_json(folder / "environment.json", record | times)
    log.info("Writing the report ...", extra={"fields": {"step": "report"}})
    with interrupts.deferred():
        if prepared.index.task == "findings":
            findings_report.write(folder, samples=images)
        else:
            html_report.write(folder, samples=images | _training_samples(prepared))
    return Run(folder)


def _devices(recipe: Recipe) -> list[str]:
    if backend.on_jax():
        from chestxray.models import jax_devices

        return jax_devices.chosen(recipe.devices)
    from chestxray.models import devices

    return devices.chosen(recipe.devices)


def _assess(job: Job, outcome: Trial) -> None:
    """Write the figures of a run of classes, and what cheap models achieve that do not see the lungs."""
    from chestxray.evaluation.shortcuts import controls

    recipe, prepared, folder, test = job.recipe, job.prepared, job.folder, outcome.test
    decision, validation = outcome.decision, outcome.validation
    assert isinstance(test, Predictions) and isinstance(validation, Predictions) and isinstance(decision, Decision)
    with job.clock.step("evaluate", _computing(recipe)):
        found = assess(
            test,
            prepared.index,
            recipe,
            decision,
            folder,
            validation=validation,
            refusals=outcome.refusals,
        )
    if recipe.controls:
        with job.clock.step("controls", "Training the controls"):
            made = controls.controls(
                prepared.index,
                prepared.pixels,
                test,
                found.to_json(),
                fit=recipe.fit,
                seed=recipe.seed,
                masked=_without_lungs(job),
            )
            controls.write(folder, made)


def _assess_findings(job: Job, outcome: Trial) -> None:
    """Write the figures of a run of findings, and of each finding what cheap models achieve."""
    from chestxray.runs import finding_results

    recipe, prepared, folder = job.recipe, job.prepared, job.folder
    test, decision, validation = outcome.test, outcome.decision, outcome.validation
    assert isinstance(test, FindingPredictions) and isinstance(validation, FindingPredictions)
    assert isinstance(decision, FindingDecision)
    with job.clock.step("evaluate", _computing(recipe)):
        found = finding_results.assess_findings(
            test, prepared.index, recipe, decision, folder, validation=validation, refusals=outcome.refusals
        )
    if recipe.controls:
        with job.clock.step("controls", f"Training the controls of {len(found.scored)} findings"):
            masked = _without_lungs(job)
            finding_results.write_controls(folder, prepared.index, prepared.pixels, test, found, recipe, masked)


def _without_lungs(job: Job) -> lungs.Masked | None:
    """Return what the model answers to test images without their lungs; None where no plugin finds lungs."""
    from chestxray.evaluation.shortcuts import lungs
    from chestxray.models import forward

    model = forward.Forward(job.built.model)

    def answer(films: np.ndarray) -> np.ndarray:
        given = forward.outputs(model, films, np.arange(len(films)), job.recipe.predict_batch_size)
        return np.concatenate([part[0] for part in given])

    given, recipe = job.prepared, job.recipe
    return lungs.masked(given.index, given.pixels, answer, seed=recipe.seed, whole=given.films, fit=recipe.fit)


def _explain(job: Job, outcome: Trial, *, trained: bool) -> None:
    """Check the heat maps, and draw those of the panel. `trained` says whether the model was trained in this run."""
    from chestxray.explanation import gradcam
    from chestxray.runs import heat_maps
    from chestxray.training import checkpoint, shuffled_labels

    layer, reason, model = job.plugin.cam_layer, job.plugin.cam_reason, job.built.model
    if layer is not None:
        layer = gradcam.with_places(model, layer)
    test, validation, rows = outcome.test, outcome.validation, job.prepared.index.rows
    images = _by_path(job.prepared, validation) | _by_path(job.prepared, test)
    shuffled = None
    if trained and heat_maps.needs_shuffled(job.recipe, layer, model):
        with job.clock.step("train_shuffled", shuffled_labels.DOING), interrupts.deferred():
            shuffled = shuffled_labels.train(
                lambda: build(job.recipe, job.plugin, job.prepared), job.prepared.pixels, job.prepared.index,
                job.recipe, job.folder / checkpoint.STATE / shuffled_labels.FOLDER, job.strategy, job.cache,
            )  # fmt: skip
    if heat_maps.asked(job.recipe):
        with job.clock.step("check_maps", "Checking what the heat maps are worth"), interrupts.deferred():
            heat_maps.check(job.folder, model, layer, test, validation, images, rows, job.recipe, shuffled)
    with job.clock.step("explain", "Drawing heat maps"), interrupts.deferred():
        heat_maps.draw(job.folder, model, layer, reason, test, images, job.recipe)


def _computing(recipe: Recipe) -> str:
    return f"Computing figures, and intervals from {recipe.replicates:,} bootstrap replicates"


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """If the block fails to write or is interrupted, say that finished work is kept and how to resume."""
    if hosts.index():
        yield
        return
    again = f"Finished work is kept. Continue it: chestxray run --resume {remote.shown(folder)}"
    try:
        with explained(folder):
            yield
    except OutputError as error:
        raise OutputError(f"{error} {again}") from error
    except KeyboardInterrupt:
        log.warning("Interrupted. %s", again)
        raise


def build(recipe: Recipe, plugin: ModelPlugin, prepared: Prepared) -> Built:
    """Return the network of `recipe` before its training.

    Raises:
        InputError: a head that no probe replaces; a layer to train from that the backbone does not have.
        PluginError, WeightsError: as `assembly.build`.
    """
    from chestxray.models import assembly
    from chestxray.training import linear_probe

    rows = np.flatnonzero((prepared.index.rows["split"] == "train").to_numpy())
    assert recipe.image_size is not None
    built = assembly.build(
        plugin,
        len(prepared.index.classes),
        recipe.image_size,
        task=prepared.index.task,
        name=recipe.model,
        weights=None if recipe.weights == "none" else recipe.weights,
        normalisation=recipe.normalisation,
        pooling=recipe.pooling,
        moments=assembly.moments(prepared.pixels, rows) if recipe.normalisation == "pixel" else None,
        batch_norm_momentum=recipe.batch_norm_momentum,
        mixed_precision=recipe.mixed_precision,
        seed=recipe.seed,
    )
    if recipe.probe:
        linear_probe.dense_of(built, recipe.model)  # said before the images are seen
    if recipe.finetune_from not in (None, "all", *built.backbone):
        raise InputError(
            f"finetune_from must be all or a layer of the backbone of {recipe.model}."
            f"{nearest(str(recipe.finetune_from), built.backbone)} Received: {recipe.finetune_from!r}."
        )
    return built


def _model_facts(built: Built, recipe: Recipe) -> dict[str, Any]:
    trained = sum(int(np.prod(v.shape)) for v in built.model.trainable_variables)
    facts = {
        "parameters": built.model.count_params(),
        "trained_parameters": trained,
        "image_size": list(recipe.image_size or ()),
    }
    published = built.plugin.published.get(recipe.weights)
    if published is not None:
        facts["published_weights"] = {
            "name": recipe.weights,
            "url": published.url,
            "sha256": built.weights_sha256,
            "trained_on": list(published.trained_on),
        }
    return facts


def _by_path(prepared: Prepared, predictions: Table) -> dict[str, np.ndarray]:
    """Return the pixels of the predicted images by path, as views of the memory map without copying."""
    places = {path: i for i, path in enumerate(prepared.index.rows["path"])}
    return {path: prepared.pixels[places[path]] for path in predictions.rows["path"]}


def _training_samples(prepared: Prepared, each: int = 6) -> dict[str, np.ndarray]:
    """Return the pixels of the first `each` images of each class in the training split, by path."""
    rows = prepared.index.rows
    first = rows[rows["split"] == "train"].groupby("label").head(each)
    return {path: prepared.pixels[i] for i, path in first["path"].items()}
