"""The whole flow of a run, in order. Start reading here.

recipe -> source -> index -> decoded -> split -> audit -> model -> training -> trial (validation
decides, the test is predicted) -> assessment -> controls -> explanation -> report

Images are decoded before they are audited and split, because decoding sees what both need: which
files cannot be read, and which have the same pixels.
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

from chestxray import backend, environment, evaluation, near_duplicates, refusal, registry, run_folder, sources
from chestxray import cache as caches
from chestxray.assessment import assess
from chestxray.audit import Audit, audit, settle
from chestxray.decoded import decode, readable
from chestxray.errors import InputError, OutputError, nearest
from chestxray.evaluation import Evaluation
from chestxray.files import explained, replacing, write_json, write_text
from chestxray.index import Index
from chestxray.plugin import ModelPlugin
from chestxray.prediction import Predictions
from chestxray.recipe import Recipe
from chestxray.run_folder import Run
from chestxray.split import split
from chestxray.subgroups import groups

if TYPE_CHECKING:
    from chestxray.model import Built

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Data made ready: rows of ``index`` and ``pixels`` uint8 (rows, height, width) correspond."""

    index: Index
    pixels: np.ndarray
    audit: Audit


@dataclass
class Clock:
    """Seconds by step, for the record."""

    started: str = field(default_factory=environment.now)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the block as the step `name`."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def run(
    recipe: Recipe,
    *,
    output: str | Path | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
) -> Run:
    """Train and evaluate what `recipe` says, and return the finished run.

    `output` is the run's folder (default: ``runs/`` with time, model and data), `cache` the cache
    folder.

    Raises:
        ChestXrayError: anything that a user can mend. Before training starts nothing is left
            behind; afterwards the folder holds what `resume` needs.
    """
    recipe, plugin, entry = resolve(recipe)
    folder = Path(output) if output else run_folder.default_folder(recipe.model, recipe.data[0])
    new = run_folder.create(folder, overwrite=overwrite)
    try:
        job = _prepare_job(recipe, plugin, entry, folder, caches.root(cache))
    except BaseException:
        # Nothing has been made yet, neither by mistake nor by Ctrl-C.
        if new:
            folder.rmdir()
        raise
    if not new:
        run_folder.clear(folder)
    with _kept(folder):
        write_text(folder / run_folder.RECIPE, recipe.to_toml())
        return _finish(job)


def resume(folder: str | Path, *, cache: str | Path | None = None) -> Run:
    """Go on with an interrupted run from its last finished epoch.

    Raises:
        InputError: `folder` is no run.
    """
    path = Path(folder)
    if not (path / run_folder.RECIPE).is_file():
        raise InputError(f"{path} is no run: --resume needs a folder with {run_folder.RECIPE} in it.")
    if Run(path).finished:
        log.info("The run %s is finished; nothing is left to do.", path)
        return Run(path)
    recipe, plugin, entry = resolve(Recipe.read(path / run_folder.RECIPE))
    job = _prepare_job(recipe, plugin, entry, path, caches.root(cache))
    with _kept(path):
        return _finish(job)


def resolve(recipe: Recipe) -> tuple[Recipe, ModelPlugin, registry.Entry]:
    """Fill in what depends on the architecture, image size and weights, and make paths absolute.

    Raises:
        PluginError: an unknown or broken model.
        InputError: an image size or weights that the architecture does not take.
    """
    if not recipe.model:
        raise InputError("No model. Choose one with --model; `chestxray models` lists them.")
    if not recipe.data:
        raise InputError("No data. Choose some with --data, such as folder:PATH or phantom.")
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
    epochs = recipe.epochs if weights == "none" else recipe.epochs + recipe.head_epochs
    if not epochs:
        raise InputError("epochs is 0 and there are no pretrained weights: nothing would be trained.")
    if weights not in ("none", *plugin.weights):
        weights = str(Path(weights).expanduser().absolute())
    if recipe.finetune_from is not None:
        start = None if recipe.finetune_from == "all" else recipe.finetune_from
        plugin = dataclasses.replace(plugin, finetune_from=start)
    return sources.absolute(recipe).replace(image_size=size, weights=weights), plugin, entry


def prepare(recipe: Recipe, cache: Path, clock: Clock) -> Prepared:
    """Source, decoding, split and audit: everything before a model is needed."""
    assert recipe.image_size is not None, "resolve() fills in the size"
    with clock.step("source"):
        index = sources.load(recipe, cache)
    # A mistake that evaluation would find is found before hours of training.
    evaluation.headline_class(index.classes, recipe.positive)
    for column in recipe.by:
        groups(index.rows, column)
    log.info("Data: %s, %d images of %d classes.", index.name, len(index), len(index.classes))
    with clock.step("decode"):
        decoded = decode(index, recipe.image_size, recipe.fit, cache, max_pixels=recipe.max_pixels)
    with clock.step("split and audit"):
        index = readable(index, decoded, recipe.max_unreadable)
        # Before the split, so that one that is drawn keeps copies together.
        index = near_duplicates.mark(index, decoded.pixels)
        splits = split(index, recipe)
        index, found = settle(splits.index, audit(splits.index, splits.notes), recipe.on_leak)
    for note in found.notes:
        log.info("%s", note)
    if found.dropped:
        log.info("Left out of training because of leaks: %d images.", len(found.dropped))
    return Prepared(index=index, pixels=decoded.pixels, audit=found)


@dataclass(frozen=True)
class Job:
    """A run whose data and model are ready and whose training can start."""

    recipe: Recipe
    plugin: ModelPlugin
    entry: registry.Entry
    prepared: Prepared
    built: Built
    strategy: Any
    folder: Path
    cache: Path
    clock: Clock


def _prepare_job(recipe: Recipe, plugin: ModelPlugin, entry: registry.Entry, folder: Path, cache: Path) -> Job:
    clock = Clock()
    prepared = prepare(recipe, cache, clock)
    log.info("Loading TensorFlow ...")
    # Here and not above: everything until now goes, and fails, without waiting for TensorFlow.
    backend.start()
    from chestxray import devices

    strategy = devices.strategy(recipe.devices)
    with clock.step("build"), strategy.scope():
        built = _build(recipe, plugin, prepared)
    return Job(recipe, plugin, entry, prepared, built, strategy, folder, cache, clock)


def _finish(job: Job) -> Run:
    """Training, prediction, evaluation, controls, explanation, report."""
    from chestxray import devices, explanation, report, training, trial
    from chestxray.figures.pairs import write_contact_sheets

    recipe, prepared, model, folder, clock = job.recipe, job.prepared, job.built.model, job.folder, job.clock
    write_json(folder / "audit.json", prepared.audit.to_json())
    write_contact_sheets(prepared.audit, prepared.index, prepared.pixels, folder / "figures")
    with replacing(folder / "index.parquet") as temporary:
        prepared.index.write(temporary)
    with clock.step("train"):
        training.train(job.built, prepared.pixels, prepared.index, recipe, folder, job.strategy, job.cache)
    with clock.step("predict"):
        held = trial.hold(job.built, prepared.pixels, prepared.index, recipe, job.cache)
        with replacing(folder / run_folder.MODEL) as temporary:
            model.save(temporary)
        held.predictions.write(folder / "predictions.csv")
        if held.familiar is not None:
            held.familiar.write(folder / refusal.FILE)
    test = held.test
    with clock.step("evaluate"):
        found = assess(
            test, prepared.index, recipe, held.decision, folder, validation=held.validation, refusals=held.refusals
        )
    if recipe.controls:
        with clock.step("controls"):
            _control(prepared, found, recipe, folder, clock)
    images = _by_path(prepared, test)
    with clock.step("explain"):
        layer, reason = job.plugin.cam_layer, job.plugin.cam_reason
        explanation.write_panel(model, layer, reason, test, images, recipe.heatmaps, recipe.seed, folder / "heatmaps")
    facts = _model_facts(job.built, recipe) | {"images_per_second": held.images_per_second}
    record = environment.describe(job.entry, job.plugin, prepared.index, facts, devices.chosen(recipe.devices))
    times = {"started": clock.started, "finished": environment.now(), "seconds": clock.seconds}
    write_json(folder / "environment.json", record | times)
    report.write(folder, samples=images | _training_samples(prepared))
    training.finish(folder)
    return Run(folder)


def _control(prepared: Prepared, found: Evaluation, recipe: Recipe, folder: Path, clock: Clock) -> None:
    """What cheap models get that see no lungs, within a quarter of what the run has taken."""
    from chestxray import trust

    budget = sum(clock.seconds.values()) / 4
    result = trust.controls(
        prepared.index, prepared.pixels, found.to_json(), seconds=budget, fit=recipe.fit, seed=recipe.seed
    )
    write_json(folder / "controls.json", result)
    log.info("Controls: %s", result["verdict"])


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Whatever stops the block, say that what is done is kept and how to go on with it."""
    again = f"What is done is kept. Go on with it: chestxray run --resume {folder}"
    try:
        with explained(folder):
            yield
    except OutputError as error:
        raise OutputError(f"{error} {again}") from error
    except KeyboardInterrupt:
        log.warning("Interrupted. %s", again)
        raise


def _build(recipe: Recipe, plugin: ModelPlugin, prepared: Prepared) -> Built:
    from chestxray import model

    rows = np.flatnonzero((prepared.index.rows["split"] == "train").to_numpy())
    assert recipe.image_size is not None
    built = model.build(
        plugin,
        len(prepared.index.classes),
        recipe.image_size,
        name=recipe.model,
        weights=None if recipe.weights == "none" else recipe.weights,
        normalisation=recipe.normalisation,
        moments=model.moments(prepared.pixels, rows) if recipe.normalisation == "pixel" else None,
        batch_norm_momentum=recipe.batch_norm_momentum,
        mixed_precision=recipe.mixed_precision,
        seed=recipe.seed,
    )
    if recipe.finetune_from not in (None, "all", *built.backbone):
        raise InputError(
            f"finetune_from must be all or a layer of the backbone of {recipe.model}."
            f"{nearest(str(recipe.finetune_from), built.backbone)} Received: {recipe.finetune_from!r}."
        )
    return built


def _model_facts(built: Built, recipe: Recipe) -> dict[str, Any]:
    trained = sum(int(np.prod(v.shape)) for v in built.model.trainable_variables)
    return {
        "parameters": built.model.count_params(),
        "trained_parameters": trained,
        "image_size": list(recipe.image_size or ()),
    }


def _by_path(prepared: Prepared, predictions: Predictions) -> dict[str, np.ndarray]:
    """The pixels of predicted images, by path: views of the map, nothing is copied."""
    places = {path: i for i, path in enumerate(prepared.index.rows["path"])}
    return {path: prepared.pixels[places[path]] for path in predictions.rows["path"]}


def _training_samples(prepared: Prepared, each: int = 6) -> dict[str, np.ndarray]:
    """The first images of each class in the training split."""
    rows = prepared.index.rows
    first = rows[rows["split"] == "train"].groupby("label").head(each)
    return {path: prepared.pixels[i] for i, path in first["path"].items()}
