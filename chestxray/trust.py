"""Is the score to be believed? Beside it, what a cheap model gets that sees no lungs.

A model that reads the corner of the film, the size of the file or the look of a hospital can score
as one that reads lungs does (Zech et al. 2018; Maguolo and Nanni 2021). Each control trains a cheap
model on the run's training rows, sees only what it names, and is tested on the run's test rows.

When a control fires. Of each, the lower end of the AUROC's 95% interval counts, widened for the
number of figures that are looked at together (Bonferroni), so that all controls of a run together
raise a false alarm in less than one run in twenty (``benchmarks/controls.md`` measures it).

- A *leak* (border, file facts, source) sees nothing of disease and should be near .5: it fires above
  `LIMIT`. With more than two classes, that one of its classes counts which stands out most.
- A *likeness* (blanked centre, thumbnail) sees some disease, such as a large heart. It fires where it
  reaches the share `SHARE` of what the model gains over a coin toss, and `LIMIT`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from chestxray import control_inputs, control_models
from chestxray.control_wording import SHARE, says, settle_source, verdict
from chestxray.evaluation import Evaluation, evaluate, headline_class, supports
from chestxray.images import Fit, UnreadableImage
from chestxray.index import Index
from chestxray.intervals import LEVEL, Figure
from chestxray.prediction import Predictions

#: An AUROC whose interval lies below explains too little of any score to be worth an alarm.
LIMIT = 0.55
#: Rows of each split at most, and at least where time is short.
MOST = {"train": 3000, "validation": 1000, "test": 1_000_000}
FEWEST = 200
FEWEST_REPLICATES = 200
#: Roughly what the fits cost, in seconds a training row and class on one slow core.
FIT_SECONDS = 3e-4


@dataclass(frozen=True)
class Control:
    """One control. ``features``: float (rows of the sample, features); ``labels``: what it is to tell,
    for each of these rows one of ``classes``.
    """

    name: str
    title: str
    sees: str
    leak: bool
    features: np.ndarray
    fit: control_models.Fitter
    labels: pd.Series
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """When a control fires: above `limit`, with intervals widened for as many ``figures``."""

    model: float | None
    figures: int

    def limit(self, leak: bool) -> float:
        """AUROC that the lower end of the widened interval must exceed."""
        if leak or self.model is None:
            return LIMIT
        return max(LIMIT, 0.5 + SHARE * (self.model - 0.5))

    def share(self, value: float | None) -> float | None:
        """How much of what the model gains over a coin toss `value` has; None where it gains nothing."""
        if value is None or self.model is None or self.model <= 0.5:
            return None
        return max(0.0, (value - 0.5) / (self.model - 0.5))


def controls(
    index: Index,
    pixels: np.ndarray,
    metrics: Mapping[str, Any],
    *,
    seconds: float,
    fit: Fit = "stretch",
    seed: int = 0,
    replicates: int = 1000,
) -> dict[str, Any]:
    """Train and test every control, and return the content of ``controls.json``.

    Args:
        index: the decoded index with the run's splits; rows without a split have no part.
        pixels: uint8 (rows of `index`, height, width).
        metrics: ``metrics.json`` of the model whose score is in question.
        seconds: time that may be spent. Where it is short, rows and replicates are fewer, but
            `FEWEST` rows of each split are always used, which takes some seconds.
        fit: how the pixels were fitted, for lung masks.
        seed: fixes the rows drawn, the models and the intervals.
        replicates: bootstrap replicates of each interval, at most.
    """
    # The limit holds for libraries that are loaded already, so that scikit-learn's must be.
    import sklearn.ensemble  # noqa: F401
    from threadpoolctl import threadpool_limits

    start = time.perf_counter()
    # Beside another busy process, threads that wait for each other make small fits many times slower.
    with threadpool_limits(1):
        sample, seen, left_out = _sample(index, pixels, fit, seconds, seed)
        planned, missing = _planned(index, sample, seen)
        left_out |= missing
        left = seconds - (time.perf_counter() - start)
        replicates = _replicates(index, sample, left / 2 / len(planned), replicates, seed)
        classes = len(index.classes)
        model = metrics["test"]["auroc"]
        each = 1 if classes == 2 else classes
        rule = Rule(model["value"], sum(each if control.leak else 1 for control in planned))
        tested = [_tested(control, sample, metrics["positive"], rule, replicates, seed) for control in planned]
    settle_source(tested)
    return {
        "verdict": verdict(model, tested),
        "fires": [item["name"] for item in tested if item["fires"]],
        "model": {name: metrics["test"][name] for name in ("auroc", "accuracy")},
        "controls": tested,
        "left_out": [{"name": name, "reason": reason} for name, reason in left_out.items()],
        "rule": {"limit": LIMIT, "share": SHARE, "figures": rule.figures},
        "replicates": replicates,
        "budget": round(seconds, 3),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _sample(
    index: Index, pixels: np.ndarray, fit: Fit, seconds: float, seed: int
) -> tuple[pd.DataFrame, control_inputs.Grids, dict[str, str]]:
    """Rows that fit the time, their cells, and why masks are not used where they are not."""
    rng = np.random.default_rng(seed)
    splits = index.rows["split"].to_numpy()
    used = np.flatnonzero(np.isin(splits, list(MOST)))
    masked = control_inputs.has_masks(index.rows.iloc[used])
    pilot = rng.permutation(used)[:16]
    left_out = {}
    start = time.perf_counter()
    try:
        control_inputs.grids(index.rows, pixels, pilot, fit, masked=masked)
    except UnreadableImage as error:
        masked, left_out = False, {"lung masks": str(error)}
    a_row = (time.perf_counter() - start) / len(pilot)
    of = {name: np.flatnonzero(splits == name) for name in MOST}
    wanted = {name: min(len(of[name]), most) for name, most in MOST.items()}
    cost = sum(wanted.values()) * a_row + wanted["train"] * FIT_SECONDS * len(index.classes)
    part = min(1.0, seconds / 2 / cost)
    clusters = index.clusters().to_numpy()
    places = np.concatenate(
        [_draw(of[name], clusters, max(int(part * n), min(n, FEWEST)), rng) for name, n in wanted.items()]
    )
    try:
        seen = control_inputs.grids(index.rows, pixels, places, fit, masked=masked)
    except UnreadableImage as error:
        left_out = {"lung masks": str(error)}
        seen = control_inputs.grids(index.rows, pixels, places, fit, masked=False)
    return index.rows.iloc[places].reset_index(drop=True), seen, left_out


def _draw(places: np.ndarray, clusters: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """About `count` of `places`, patients whole, in their order."""
    if count >= len(places):
        return places
    codes = pd.factorize(clusters[places])[0]
    order = rng.permutation(codes.max() + 1)[codes]
    last = np.sort(order)[count - 1]
    return places[order <= last]


def _planned(index: Index, sample: pd.DataFrame, seen: control_inputs.Grids) -> tuple[list[Control], dict[str, str]]:
    """The controls that these rows allow, and why the others have no part."""
    task: dict[str, Any] = {"labels": sample["label"], "classes": index.classes}
    facts = control_inputs.file_facts(sample, seen)
    pictures, mixed = control_models.pictures, control_models.pictures_and_trees
    border = control_inputs.border(seen)
    hidden = "the centre, three quarters of the width and height," if seen.lungs is None else "the lungs of the mask"
    planned = [
        Control("border", "The border", "A narrow frame round the image, and its four corners.", True, border, mixed,
                **task),
        Control("file_facts", "File facts", "Width, height, their ratio, colour mode and format of the file; "
                "brightness and contrast of the border. No picture.", True, facts, control_models.trees, **task),
        Control("blanked_centre", "The blanked centre", f"The image at {control_inputs.SIDE} by {control_inputs.SIDE}, "
                f"{hidden} blanked.", False, control_inputs.blanked(seen), pictures, **task),
        Control("thumbnail", "The thumbnail", "The whole image at 8 by 8.", False, control_inputs.thumbnail(seen),
                pictures, **task),
    ]  # fmt: skip
    trained = sorted(sample.loc[sample["split"] == "train", "source"].unique())
    tested = set(sample.loc[sample["split"] == "test", "source"])
    if len(trained) < 2:
        return planned, {"predict_the_source": "All training images come from one source."}
    if len(tested) < 2 or not tested <= set(trained):
        return planned, {"predict_the_source": "The test images do not come from several of the sources trained on."}
    names = (sample["source"].to_numpy()[:, None] == np.asarray(trained)).astype(float)
    look = np.concatenate([control_inputs.thumbnail(seen), border], axis=1)
    planned += [
        Control("source", "The source", "Which data set the image came from. No picture.", True, names,
                control_models.linear, **task),
        Control("predict_the_source", "Predicting the source", "The border and the thumbnail; it is to tell the "
                "source, not the class.", False, look, pictures, sample["source"], tuple(trained)),
    ]  # fmt: skip
    return planned, {}


def _replicates(index: Index, sample: pd.DataFrame, seconds: float, most: int, seed: int) -> int:
    """Replicates that an evaluation of the test rows can have in `seconds`."""
    test = sample[sample["split"] == "test"]
    noise = np.random.default_rng(seed).dirichlet(np.ones(len(index.classes)), len(test))
    trial = Predictions.from_probabilities(test, index.classes, noise)
    start = time.perf_counter()
    evaluate(trial, replicates=20, seed=seed)
    a_replicate = (time.perf_counter() - start) / 20
    return min(most, max(FEWEST_REPLICATES, int(seconds / a_replicate)))


def _tested(
    control: Control, sample: pd.DataFrame, positive: str | None, rule: Rule, replicates: int, seed: int
) -> dict[str, Any]:
    """One item of ``controls`` in ``controls.json``."""
    start = time.perf_counter()
    rows, classes = sample.assign(label=control.labels), control.classes
    codes = pd.Categorical(rows["label"], categories=list(classes)).codes.astype(int)
    train, validation, test = (rows["split"].to_numpy() == name for name in ("train", "validation", "test"))
    x = control.features
    examples = control_models.Examples(x[train], codes[train], x[validation], codes[validation])
    given = control_models.probabilities(control.fit, examples, x[test], len(classes), seed)
    predictions = Predictions.from_probabilities(rows[test], classes, given)
    of_class = control.name != "predict_the_source"
    found = evaluate(predictions, positive=positive if of_class else None, replicates=replicates, seed=seed)
    widened, figure, label = _strongest(predictions, found, control.leak, rule.figures)
    limit = rule.limit(control.leak or not of_class)
    auroc = found.test["auroc"]
    item = {
        "name": control.name,
        "title": control.title,
        "sees": control.sees,
        "kind": "leak" if control.leak else "likeness" if of_class else "source",
        "auroc": auroc.to_json(),
        "accuracy": found.test["accuracy"].to_json(),
        "strongest": {"class": label, "auroc": figure.to_json()},
        "share": rule.share(auroc.value) if of_class else None,
        "widened_low": widened,
        "limit": limit,
        "fires": widened is not None and widened > limit,
        "rows": {name: int(mask.sum()) for name, mask in (("train", train), ("test", test))},
    }
    return item | {"says": says(item), "seconds": round(time.perf_counter() - start, 3)}


def _strongest(
    predictions: Predictions, found: Evaluation, leak: bool, figures: int
) -> tuple[float | None, Figure, str | None]:
    """The widened lower end that counts, its figure, and the class it is of, None for the headline's."""
    truth, classes = predictions.truth, predictions.classes
    support = supports(
        truth, predictions.predicted, predictions.clusters, len(classes), headline_class(classes, found.positive)
    )
    candidates: list[tuple[Figure, float, str | None]] = [(found.test["auroc"], support[None, "auroc"], None)]
    if leak and len(classes) > 2:
        candidates = [(found.per_class[name]["auroc"], support[k, "auroc"], name) for k, name in enumerate(classes)]
    judged = [(widened_low(figure, rests_on, figures), figure, name) for figure, rests_on, name in candidates]
    return max(judged, key=lambda item: -math.inf if item[0] is None else item[0])


def widened_low(figure: Figure, support: float, figures: int) -> float | None:
    """Lower end of the interval of `figure`, widened for `figures` looked at together; None without one.

    `support` is the number of patients that it rests on. The interval is that of `intervals.logit_t`.

    >>> widened_low(Figure(0.8, 0.7, 0.87), 100, 1)
    0.7
    """
    if figure.value is None or figure.low is None or support <= 1:
        return None
    tail = (1 - LEVEL) / 2
    if figure.value in (0.0, 1.0):
        return min(figure.low, 1 - (1 - (tail / figures) ** (1 / support)))
    ratio = stats.t.isf(tail / figures, support - 1) / stats.t.isf(tail, support - 1)
    middle, low = (math.log(p / (1 - p)) for p in (figure.value, max(figure.low, 1e-9)))
    return round(1 / (1 + math.exp(-(middle - ratio * (middle - low)))), 12)
