"""What a comparison says of the heat maps of its models: whether trainings, and models, agree on where they look."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chestxray.errors import ChestXrayError
from chestxray.explanation.map_check import Explain, MapCheck
from chestxray.models import startup
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import MODEL, Run
from chestxray.storage import checksums

if TYPE_CHECKING:
    from chestxray.studies.candidates import Candidate

#: Fields of a recipe that two trainings may differ in and still be two of the same: the seeds, and what is done with a
#: model once it is trained. Not among them are ``keep_validation``, which gives training other images by a rule and not
#: by chance, and ``cache_gigabytes``: what frozen layers give of augmented images is trained on again where the cache
#: holds it, and else computed of images that are augmented anew.
_BESIDE_TRAINING = (
    "seed", "split_seed", "max_unreadable", "predict_batch_size", "calibrate", "refuse", "controls", "by", "abstain",
    "sensitivity", "confidence", "positive", "prevalence", "replicates", "metric", "explain", "heatmaps", "map_checks",
    "masks",
)  # fmt: skip


@dataclass(frozen=True)
class MapAgreement:
    """The checks ``repeatability`` and ``reproducibility`` of the maps of one ``method``; ``left_out``, the reason by
    the name of each model that has no maps to compare; ``reason`` why there is no check at all, else ``""``.
    """

    method: str
    checks: tuple[MapCheck, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return all of it in JSON types."""
        return {
            "method": self.method,
            "reason": self.reason,
            "left_out": dict(self.left_out),
            "checks": [check.record() for check in self.checks],
        }


def agreement(candidates: Mapping[str, Candidate], cache: Path) -> MapAgreement:
    """Return whether the models of `candidates` have their maps at the same places, by `map_reproducibility`.

    The maps are those of ``recipe.explain``, which must be one method for all, of images fitted and cut alike.
    Runs that differ in nothing but their seeds are trainings of one model. Of a cross-validation the runs of the first
    fold count, and of runs with the same network the first. Images are decoded in `cache`. What cannot be compared has
    a reason, and raises nothing.
    """
    runs = {name: _of_one_fold(candidate.runs) for name, candidate in candidates.items()}
    methods = sorted({run.recipe.explain for of_model in runs.values() for run in of_model})
    if len(methods) > 1:
        return MapAgreement("", reason=f"The runs draw their maps by different methods: {', '.join(methods)}.")
    (method,) = methods
    shown = sorted({f"fit {run.recipe.fit}, crop {run.recipe.crop}" for of_model in runs.values() for run in of_model})
    if len(shown) > 1:
        return MapAgreement(method, reason=f"A place in the map is another place of the film: {'; '.join(shown)}.")
    left_out = {name: "It has no model of its own, only predictions." for name in runs if not _have_models(runs[name])}
    try:
        runs = _of_own_weights(runs, left_out)
        if not _enough(runs, left_out):
            return MapAgreement(method, left_out=left_out, reason=_TOO_FEW)
        startup.require_tensorflow("A comparison of heat maps")
        startup.start()
        from chestxray.explanation import map_checks
        from chestxray.studies.map_reproducibility import map_reproducibility

        for name, of_model in runs.items():
            if name in left_out:
                continue
            layer, none = of_model[0].cam_layer
            if unable := map_checks.unable(method, layer):
                left_out[name] = unable if of_model[0].heatmaps else none
            elif unable := map_checks.unable(method, layer, of_model[0].model):
                left_out[name] = unable
        if not _enough(runs, left_out):
            return MapAgreement(method, left_out=left_out, reason=_TOO_FEW)
        compared = _trainings({name: runs[name] for name in runs if name not in left_out})
        checks = map_reproducibility(compared, lambda run: _explain(method, run), cache)
    except ChestXrayError as error:
        return MapAgreement(method, left_out=left_out, reason=str(error))
    return MapAgreement(method, tuple(checks), left_out)


_TOO_FEW = "There are fewer than two models, or trainings, with maps."


def _of_one_fold(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that hold out what the first one does: others are tested on other images, or trained on them."""
    recipes = {run.folder: run.recipe for run in runs}
    first = recipes[runs[0].folder]
    return [
        run
        for run, recipe in zip(runs, recipes.values(), strict=True)
        if (recipe.fold, recipe.held_out) == (first.fold, first.held_out)
    ]


def _of_own_weights(runs: Mapping[str, Sequence[Run]], left_out: dict[str, str]) -> dict[str, list[Run]]:
    """Return `runs` without those whose network is a copy of another's: two of one training say nothing of a second. A
    model that has no others is left out, with the reason, and keeps its runs.

    Raises:
        DataError: ``checksums.json`` of a run is damaged.
    """
    found: dict[str, list[Run]] = {}
    first: dict[str, str] = {}
    for name, of_model in runs.items():
        found[name], copied = list(of_model), ""
        if name in left_out:
            continue
        own = []
        for run in of_model:
            weights = checksums.known(run.folder / MODEL)
            if weights in first:
                copied = first[weights]
            else:
                first[weights] = name
                own.append(run)
        if own:
            found[name] = own
        else:
            left_out[name] = f"It has the network of {copied}: it is a copy, and no other training."
    return found


def _have_models(runs: Sequence[Run]) -> bool:
    return all(run.has_model for run in runs)


def _enough(runs: Mapping[str, Sequence[Run]], left_out: Mapping[str, str]) -> bool:
    return sum(len(of_model) for name, of_model in runs.items() if name not in left_out) > 1


def _trainings(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[Run]]:
    """Return the runs by model: those of one name, and single ones whose trainings differ in nothing but the seed."""
    names: dict[str, list[str]] = {}
    for name, of_model in runs.items():
        names.setdefault(_training(of_model[0].recipe), []).append(name)
    found = {}
    for alike in names.values():
        model = runs[alike[0]][0].recipe.model
        name = alike[0] if len(alike) == 1 else f"{model} ({', '.join(alike)})"
        found[name] = [run for one in alike for run in runs[one]]
    return found


def _training(recipe: Recipe) -> str:
    """Return what `recipe` says of the training, but for its seeds."""
    plain = {one.name: one.default for one in dataclasses.fields(Recipe) if one.name in _BESIDE_TRAINING}
    return recipe.replace(**plain).to_toml()


def _explain(method: str, run: Run) -> Explain:
    from chestxray.explanation.published_explanations import maps_of

    layer = run.cam_layer[0]
    return lambda model, pixels, classes: maps_of(method, model, layer, pixels, classes)
