"""External validation of a finished run on other data, and re-evaluation of its own test.

An external evaluation is a folder with the format of a run's, without a model. Its ``generalisation_gap.json`` has
the difference of each figure from that on the run's own test.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from chestxray import registry
from chestxray.data import near_duplicates, sources
from chestxray.data.decoded import decode, opened, readable
from chestxray.data.index import Index
from chestxray.data.sources.mask_folders import with_masks
from chestxray.errors import DataError, InputError, OutputError
from chestxray.evaluation.clinical.prevalence_shift import label_shift
from chestxray.evaluation.decision import finding_rule, finding_selection, out_of_distribution
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.decision.rule import FILE as DECISION
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.selection import decide
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.subgroups import groups
from chestxray.models import startup
from chestxray.recipe import Recipe
from chestxray.report import findings_report, html_report, model_card
from chestxray.report.limitations import TRAINING_RUN
from chestxray.runs import output_folder, provenance, run_folder
from chestxray.runs.finding_results import assess_findings
from chestxray.runs.results import Refusals, Scorer, assess
from chestxray.runs.run_folder import Run
from chestxray.storage.files import explained, replacing, write_json, write_text
from chestxray.studies import contamination, external_findings, shuffled_training
from chestxray.studies.external_figures import compared, training_cautions

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

Part = Literal["all", "train", "validation", "test"]
#: Fields of a recipe that determine the tested images, their classes and their patients.
_CHOICE_OF_IMAGES = (
    "data", "path", "data_option", "patient_pattern", "label_pattern", "map", "drop", "uncertain", "view",
    "on_leak",
)  # fmt: skip


#: Fields of a recipe on heat maps.
MAPS = ("explain", "heatmaps", "map_checks", "masks")


def evaluate_on(
    run: Run,
    data: Recipe,
    cache: Path,
    *,
    part: Part = "all",
    output: Path | None = None,
    overwrite: bool = False,
    maps: Mapping[str, Any] | None = None,
) -> Run:
    """Evaluate `run` on the data of the recipe `data`, with the run's calibration and decision rule.

    The recipe's fields of data and evaluation are used; classes, image size and fit are the run's. `part` selects
    one official split. Images that the run was trained or validated on, exact or near copies, and images of their
    patients are leaks: ``data.on_leak`` says whether to stop, leave them out or keep them, see `contamination`.
    `maps` are fields of a recipe on heat maps, `MAPS`, in place of the run's; without ``map_checks`` the maps are not
    checked on these data.

    Returns the folder (default: `default_folder`, where an earlier evaluation of the same data is replaced) as a
    `Run` without a model.

    Raises:
        DataError: classes that the run does not have; no image to evaluate.
        LeakError: images or patients of the run's training, where `data` says stop.
        InputError: a run without the files that evaluation needs; checks of heat maps where none is drawn; another
            backend than TensorFlow.
        PluginError: a run whose images were cut by another segmenter than the one that is installed.
        OutputError: `output` has content and may not be overwritten, or contains the run itself.
    """
    startup.require_tensorflow("A test on other data")
    trained = run.recipe
    decision = _decision(run, data)
    recipe = _for_test(data, trained, decision.classes, decision)
    recipe = sources.absolute(recipe.replace(**{"map_checks": "none", "masks": (), **(maps or {})}))
    _require_maps(recipe, maps or {})
    registry.methods_of(recipe)
    if run.segmenter is not None:
        run.segmenter.require()
    folder = output or default_folder(run, recipe, part)
    _check_folder(run, folder, overwrite=overwrite or output is None)
    index = sources.load_index(recipe, cache, every_class=False, task=run.task).with_classes(decision.classes)
    assert trained.image_size is not None
    decoded = decode(index, trained.image_size, trained.fit, cache, max_pixels=trained.max_pixels, lungs=run.segmenter)
    index = readable(index, decoded, recipe.max_unreadable)
    index = near_duplicates.mark(_tested(index, part), decoded.films)
    seen = contamination.search(run, recipe, index, decoded.films, cache)
    index, audit = contamination.settle(index, seen, recipe.on_leak)
    for note in audit.notes:
        log.info("%s", note)
    for column in recipe.by:
        groups(index, column)
    log.info(
        "External test: %s, %d images. Loading TensorFlow ...", index.name, int((index.rows["split"] == "test").sum())
    )
    startup.start()
    from chestxray.models import devices
    from chestxray.runs import holdout

    with devices.strategy("auto").scope():  # several GPUs share the images
        model = run.model
    distribution = (
        out_of_distribution.FeatureDistribution.read(run.folder / out_of_distribution.FILE)
        if decision.features
        else None
    )
    test, refusals = holdout.repeat(model, decoded.pixels, index, decision, distribution, trained, cache)
    with output_folder.whole(folder, overwrite=overwrite or output is None) as place:
        write_text(place / run_folder.RECIPE, recipe.to_toml())
        write_json(place / "audit.json", audit.to_json())
        with replacing(place / "index.parquet") as temporary:
            index.write(temporary)
        test.write(place / "predictions.csv")
        images = _images(test, index, decoded.pixels)
        write_json(place / "environment.json", _environment(run, index))
        if isinstance(test, FindingPredictions):
            assert isinstance(decision, FindingDecision)
            external_findings.assess(run, test, index, recipe, decision, place, refusals)
            _explain(run, test, None, images, index.rows, recipe, place)
            findings_report.write(place, samples=images)
        else:
            assert isinstance(decision, Decision)
            _assess(run, test, index, recipe, decision, place, refusals)
            _explain(run, test, None, images, index.rows, recipe, place)
            html_report.write(place, samples=images)
    if output is None and not run.published:
        # The run's model card lists its external tests.
        opened = run_folder.open_findings if run.task == "findings" else run_folder.open_complete
        model_card.write(opened(run.folder))
    return Run(folder)


def _assess(
    run: Run,
    test: Predictions,
    index: Index,
    recipe: Recipe,
    decision: Decision,
    folder: Path,
    refusals: Refusals | None,
) -> None:
    """Write the figures of a run of classes on other data."""
    found = assess(test, index, recipe, decision, folder, refusals=refusals)
    # The same decision rule on both sides, also where it differs from the run's own.
    internal = Scorer(run.recipe, decision.positive)(decision.applied(run.predictions.of("test")))
    names = {"internal": run.index.name, "external": index.name}
    write_json(folder / "generalisation_gap.json", compared(internal, found, names))
    validation = decision.applied(run.predictions.of("validation"))
    if (shift := label_shift(test, validation, found, replicates=recipe.replicates, seed=recipe.seed)) is not None:
        write_json(folder / "prevalence.json", shift)
    write_json(folder / f"{TRAINING_RUN}.json", training_cautions(run.folder.name, run))


def default_folder(run: Run, data: Recipe, part: Part) -> Path:
    """Return ``external/<name>-<hash>`` in the run's folder: one folder for each selection of test images.

    `data` has absolute paths. The hash is of `_CHOICE_OF_IMAGES` and `part`; options of the evaluation do not change
    it. Of a ready model, a new folder below ``runs/``.
    """
    chosen = {name: getattr(data, name) for name in _CHOICE_OF_IMAGES} | {"part": part}
    if run.published:  # whose folder is in the cache
        return output_folder.default_folder(run.published.replace(":", "-"), data.data[0])
    digest = hashlib.blake2b(json.dumps(chosen, sort_keys=True).encode(), digest_size=4).hexdigest()
    name = output_folder.slug(*data.data, *([] if part == "all" else [part]))
    return run.folder / "external" / f"{name[:60]}-{digest}"


def _check_folder(run: Run, folder: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` for a folder that cannot be used, before the prediction, which may take hours."""
    if run.folder.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"The output {folder} holds the run itself; choose another with --output.")
    if (folder / run_folder.MODEL).is_file():
        raise OutputError(f"The output {folder} holds a trained model, which no evaluation replaces.")
    if folder.exists():
        output_folder.create(folder, overwrite=overwrite)


def evaluate_again(run: Run, changes: Mapping[str, Any], cache: Path) -> Run:
    """Evaluate the test of `run` again, with other options of the evaluation.

    `changes` are fields of the recipe: ``by``, ``abstain``, ``sensitivity``, ``confidence``, ``positive``,
    ``prevalence``, ``replicates``, ``metric``, and those of `MAPS`, which draw the heat maps anew and check them. The
    model and its probabilities do not change; the run's recipe, its figures and its report are replaced. ``masks`` are
    added to those that the run has, and count before them.

    Raises:
        InputError: a run that was not finished; a column that the data do not have, checks of heat maps where none is
            drawn, or another impossible option.
        PluginError: a metric that is unknown or broken.
    """
    if run.published:
        raise InputError(f"{run.published} has no test of its own here. Test it on other data: --data FILMS.")
    run_folder.require_evaluated(run)
    recipe = sources.absolute(run.recipe.replace(**changes))
    new = tuple(dict.fromkeys(recipe.masks)) if "masks" in changes else ()
    recipe = recipe.replace(masks=(*(one for one in run.recipe.masks if one not in new), *new))
    _require_maps(recipe, changes)
    registry.methods_of(recipe)
    checked = {"map_checks", "masks"} & changes.keys()
    decision, rows = _decision(run, recipe), _masked(run, new) if checked else run.index.rows
    for column in recipe.by:
        groups(run.index, column)
    if isinstance(decision, FindingDecision):
        return _evaluate_findings_again(run, recipe, rows, decision, changes, cache)
    predictions, samples = decision.applied(run.predictions), _samples(run, cache, changes)
    test, validation = predictions.of("test"), predictions.of("validation")
    redrawn = bool((predictions.predicted != run.predictions.predicted).any())
    with explained(run.folder):
        with _maps_again(run, test, validation, samples, rows, recipe, changes, cache, redrawn=redrawn):
            assess(test, run.index, recipe, decision, run.folder, validation=validation)
            predictions.write(run.folder / "predictions.csv")
            write_text(run.folder / run_folder.RECIPE, recipe.to_toml())
        html_report.write(run.folder, samples=samples)
    return Run(run.folder)


def _evaluate_findings_again(
    run: Run, recipe: Recipe, rows: pd.DataFrame, decision: FindingDecision, changes: Mapping[str, Any], cache: Path
) -> Run:
    before = run.finding_predictions
    predictions, samples = decision.applied(before), _samples(run, cache, changes)
    test, validation = predictions.of("test"), predictions.of("validation")
    redrawn = bool((predictions.predicted != before.predicted).any())
    with explained(run.folder):
        with _maps_again(run, test, validation, samples, rows, recipe, changes, cache, redrawn=redrawn):
            assess_findings(test, run.index, recipe, decision, run.folder, validation=validation)
            predictions.write(run.folder / run_folder.PREDICTIONS)
            write_text(run.folder / run_folder.RECIPE, recipe.to_toml())
        findings_report.write(run.folder, samples=samples)
    return Run(run.folder)


def _masked(run: Run, new: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of the run's index with its masks, those that an evaluation has added to it too, and `new` ones.

    Where a folder of the run is gone, its masks are those that the index names.
    """
    rows = run.index.rows
    for known in run.recipe.masks:
        if known in new:
            continue
        try:
            rows = with_masks(rows, run.classes, (known,))
        except (InputError, DataError) as error:
            log.warning("The masks %s of the run are not read again. %s", known, error)
    return with_masks(rows, run.classes, new)


def _require_maps(recipe: Recipe, changes: Mapping[str, Any]) -> None:
    """Raise `InputError` where `changes` ask for checks of maps and `recipe`, which has them, for no maps."""
    if "map_checks" in changes:
        recipe.require_heat_maps()


@contextmanager
def _maps_again(
    run: Run,
    test: Predictions | FindingPredictions,
    validation: Predictions | FindingPredictions,
    images: Mapping[str, np.ndarray],
    rows: pd.DataFrame,
    recipe: Recipe,
    changes: Mapping[str, Any],
    cache: Path,
    *,
    redrawn: bool,
) -> Iterator[None]:
    """Draw the panel of heat maps anew where it is to be `redrawn` or `changes` ask for it, check the maps where they
    ask for that, do the block, which writes everything else, and put the maps in the run's folder; without `images`
    the panel is removed.

    Where the maps or the block fail, the run keeps the maps that it had, and where the maps do, everything: its recipe
    says what its folder holds. The checks therefore state the AUROC of the figures before, which are of the same
    probabilities; with other replicates its interval may differ in the third digit.
    """
    if not (redrawn and recipe.heatmaps) and not changes.keys() & set(MAPS):
        yield
        return
    log.info("Drawing the heat maps again ..." if recipe.heatmaps else "Removing the heat maps ...")
    startup.start()
    from chestxray.runs import heat_maps

    checked = recipe if {"map_checks", "masks"} & changes.keys() else recipe.replace(map_checks="none", masks=())
    shuffled = None
    if heat_maps.needs_shuffled(checked, run.cam_layer[0], run.model):
        shuffled = shuffled_training.again(run, checked, cache)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        heat_maps.stage(run.folder, place)
        _explain(run, test, validation, images, rows, checked, place, shuffled)
        yield
        heat_maps.put(place, run.folder)


def _explain(
    run: Run,
    test: Predictions | FindingPredictions,
    validation: Predictions | FindingPredictions | None,
    images: Mapping[str, np.ndarray],
    rows: pd.DataFrame,
    recipe: Recipe,
    folder: Path,
    shuffled: keras.Model | None = None,
) -> None:
    """Check the heat maps of `test`, if asked for, and draw their panel in `folder`."""
    from chestxray.runs import heat_maps

    if heat_maps.asked(recipe) and images:
        log.info("Checking what the heat maps are worth ...")
    heat_maps.check(folder, run.model, run.cam_layer[0], test, validation, images, rows, recipe, shuffled)
    heat_maps.draw(folder, run.model, *run.cam_layer, test, images, recipe)


def _decision(run: Run, wanted: Recipe) -> Decision | FindingDecision:
    """Return the run's decision rule, with new thresholds or abstention where `wanted` asks for them."""
    path = run.folder / DECISION
    if not path.is_file():
        raise InputError(f"{run.folder} has no {DECISION}: run it again with this version of chestxray.")
    known = finding_rule.read(path)
    if isinstance(known, FindingDecision):
        finding_selection.check(known.classes, wanted)
    asked = {name: getattr(wanted, name) for name in ("sensitivity", "confidence", "abstain", "positive")}
    if not any(value is not None for value in asked.values()):
        return known
    if run.published:
        raise InputError(
            f"{run.published} has no validation films, on which {', '.join(n for n in asked if asked[n] is not None)} "
            f"could be chosen. Give it some first: chestxray calibrate {run.published} --data FILMS."
        )
    recipe = run.recipe.replace(**{name: value for name, value in asked.items() if value is not None})
    if isinstance(known, FindingDecision):
        return finding_selection.decide_again(run.finding_predictions.of("validation"), recipe, known)
    found = decide(run.predictions.of("validation"), recipe, known.calibration)
    return dataclasses.replace(found, features=known.features)


def _for_test(data: Recipe, trained: Recipe, classes: tuple[str, ...], decision: Decision | FindingDecision) -> Recipe:
    """Return the recipe of the evaluation: the run's, on other data."""
    kept = ("data", "path", "data_option", "patient_pattern", "label_pattern", "map", "drop", "view", "on_leak", "by")
    chosen = ("max_unreadable", "abstain", "sensitivity", "confidence")
    own = {name: getattr(data, name) for name in (*kept, *chosen)}
    return trained.replace(
        **own,
        uncertain=data.uncertain or trained.uncertain,
        metric=data.metric or trained.metric,
        prevalence=trained.prevalence if data.prevalence is None else data.prevalence,
        classes=classes,
        positive=decision.positive if isinstance(decision, Decision) else None,
        test_data=(),
        split="auto",
        folds=0,
        fold=None,
        held_out=None,
    )


def _tested(index: Index, part: Part) -> Index:
    chosen = index.rows["unreadable"] == ""
    if part != "all":
        chosen &= index.rows["split"] == part
    if not chosen.any():
        raise DataError(f"{index.name} has no images in its official split {part!r}.")
    return index.replace(index.rows.assign(split=np.where(chosen, "test", "")))


def _environment(run: Run, index: Index) -> dict[str, Any]:
    return run.environment | {
        "data": provenance.data_of(index),
        "started": provenance.now(),
        "finished": provenance.now(),
        "seconds": {},
    }


def _images(predictions: Predictions | FindingPredictions, index: Index, pixels: np.ndarray) -> dict[str, np.ndarray]:
    places = pd.Series(range(len(index)), index=index.rows["path"])
    return {path: pixels[places[path]] for path in predictions.rows["path"]}


def _samples(run: Run, cache: Path, changes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the run's images by path if they are decoded in the cache, else none: the files may be gone.

    Raises:
        InputError: they are not, and `changes` ask for other heat maps or checks of them.
    """
    recipe = run.recipe
    assert recipe.image_size is not None
    size, lungs = recipe.image_size, run.segmenter
    decoded = opened(run.index, size, recipe.fit, cache, max_pixels=recipe.max_pixels, lungs=lungs)
    if decoded is None:
        if asked := [name for name in MAPS if name in changes]:
            raise InputError(
                f"{', '.join(asked)} need the run's images, which are not decoded in the cache {cache}. "
                "Name the cache of the run with --cache, or the data with --data."
            )
        log.info("The images are no longer decoded in the cache: the report goes without its grids of radiographs.")
        return {}
    return {path: decoded.pixels[i] for i, path in enumerate(run.index.rows["path"])}
