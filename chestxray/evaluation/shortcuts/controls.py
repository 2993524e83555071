"""Shortcut controls: small classifiers whose input shows little or nothing of the lungs, compared with the model.

A model that uses the corner of the film, the size of the file or the appearance of a hospital's images can
reach the score of one that uses the lungs (Zech et al. 2018; Maguolo and Nanni 2021). Each control is a small
classifier with one such input. It shows what could be learnt, not what the model in question uses.

Each control is in one of three states:

- *fires*: A leak (border, file facts, source) has no information on disease, so that its AUROC should be near
  .5; it fires where the interval of the learnable AUROC is above `LIMIT` (with more than two classes, for the
  class with the highest lower end). A likeness (blanked centre, thumbnail) has some information on disease, such
  as the size of the heart; it fires where the interval of its share of the model's gain is above `SHARE`.
  Intervals are widened for the number of figures (Bonferroni), to keep false alarms of all controls together
  below one run in twenty (``benchmarks/controls.py`` measures it).
- *excluded*: the 95% interval ends below `EXCLUDED` for a leak, below `SHARE` for a likeness.
- *undecided*: there are too few images; what cannot be excluded is reported.

Numbers of rows and folds are fixed (`MOST`, `scores.FOLDS`), so that the same data, model and seed give the same
controls on any machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data.grouping import dependent_groups
from chestxray.data.images.pixels import Fit, UnreadableImage
from chestxray.data.index import SPLITS, Index
from chestxray.evaluation.influence import accuracy
from chestxray.evaluation.intervals import LEVEL
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.shortcuts import classifiers, inputs, lungs
from chestxray.evaluation.shortcuts.scores import Area, Rows, areas, as_tested, average, cross_fitted
from chestxray.evaluation.shortcuts.states import of_leak, of_likeness
from chestxray.evaluation.shortcuts.verdict import EXCLUDED, LIMIT, SHARE, finding, says, settle_source, verdict
from chestxray.evaluation.support import effective
from chestxray.storage.files import write_json

log = logging.getLogger(__name__)

FILE = "controls.json"
#: Most rows of each split, whole patients.
MOST = {"train": 3000, "validation": 1000, "test": 3000}


@dataclass(frozen=True)
class Control:
    """One control: its input and its target.

    ``name`` is that in files, ``title`` and ``sees`` (a description of the input) those in reports. ``kind``: leak,
    likeness or source. ``features``: float (rows of the sample, features); ``fit``: the classifier; ``labels``: the
    target of each of these rows, one of ``classes``.
    """

    name: str
    title: str
    sees: str
    kind: str
    features: np.ndarray
    fit: classifiers.Fitter
    labels: pd.Series
    classes: tuple[str, ...]

    @property
    def figures(self) -> int:
        """Number of figures that are tested: one, or one for each class of a leak with more than two."""
        return 1 if self.kind == "likeness" or len(self.classes) == 2 else len(self.classes)


def controls(
    index: Index,
    pixels: np.ndarray,
    test: Predictions,
    metrics: Mapping[str, Any],
    *,
    splits: Sequence[np.ndarray] | None = None,
    fit: Fit = "stretch",
    seed: int = 0,
    tasks: int = 1,
    masked: lungs.Masked | None = None,
) -> dict[str, Any]:
    """Train and test every control, and return the content of ``controls.json``.

    Args:
        index: the decoded index with the run's splits; rows without a split are left out.
        pixels: uint8 (rows of `index`, height, width).
        test: predictions of the model for the test rows.
        metrics: content of that model's ``metrics.json``.
        splits: where several trainings share the test, as the folds of a cross-validation do, the split
            of each row of `index` in each of them.
        fit: how the pixels were fitted, for lung masks.
        seed: of the drawn rows and the classifiers.
        tasks: number of tasks whose controls are read together, as of the findings of a run: intervals are widened
            for the figures of all of them.
        masked: what the model itself answers to films without their lungs; None: no such control.
    """
    # The limit applies to libraries that are already loaded: scikit-learn must be imported first.
    import sklearn.ensemble  # noqa: F401
    from threadpoolctl import threadpool_limits

    start = time.perf_counter()
    # Beside another busy process, threads that wait for each other make small fits many times slower.
    with threadpool_limits(1):
        every = [index.rows["split"].to_numpy(dtype=str)] if splits is None else list(splits)
        places = _places(index, every, test, seed)
        sample, rows = _sample(index, every, places)
        seen, left_out = _seen(index, pixels, places, fit)
        planned, missing = _planned(index, sample, rows, seen)
        shown = masked is not None and not masked.reason
        figures = tasks * (sum(control.figures for control in planned) + shown)
        model = _model(test, sample, rows)
        tested = [_tested(control, rows, model, figures, seed) for control in planned]
        if masked is not None and shown:
            tested.append(_shown(masked, test, figures))
        elif masked is not None:
            missing |= {lungs.NAME: masked.reason}
    settle_source(tested)
    own = {name: metrics["test"][name] for name in ("auroc", "accuracy")}
    return {
        "verdict": verdict(own["auroc"], tested),
        "finding": finding(tested),
        "fires": [item["name"] for item in tested if item["fires"]],
        "model": own,
        "controls": tested,
        "left_out": [{"name": name, "reason": reason} for name, reason in (left_out | missing).items()],
        "rule": {"limit": LIMIT, "share": SHARE, "excluded": EXCLUDED, "figures": figures},
        "rows": {"all": len(places)} | {name: int(rows.of(name).sum()) for name in SPLITS},
        "seconds": round(time.perf_counter() - start, 3),
    }


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``controls.json`` and log its verdict."""
    write_json(folder / FILE, content)
    log.info("Controls: %s", content["verdict"])


def keys(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the key of each row: its source and its path."""
    return list(zip(rows["source"], rows["path"], strict=True))


def _places(index: Index, splits: Sequence[np.ndarray], test: Predictions, seed: int) -> np.ndarray:
    """Return the rows of `index` that controls use, at most `MOST` of each split; int (rows,), in order."""
    rng = np.random.default_rng(seed)
    role = np.full(len(index), "", dtype="U10")
    for name in SPLITS:
        role[np.any([each == name for each in splits], axis=0)] = name
    predicted = set(keys(test.rows))
    role[[r == "test" and key not in predicted for r, key in zip(role, keys(index.rows), strict=True)]] = ""
    clusters = index.clusters().to_numpy()
    drawn = [_draw(np.flatnonzero(role == name), clusters, MOST[name], rng) for name in SPLITS]
    return np.sort(np.concatenate(drawn))


def _draw(places: np.ndarray, clusters: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return about `count` of `places`, whole patients, in their order."""
    if count >= len(places):
        return places
    codes = pd.factorize(clusters[places])[0]
    order = rng.permutation(codes.max() + 1)[codes]
    last = np.sort(order)[count - 1]
    return places[order <= last]


def _sample(index: Index, splits: Sequence[np.ndarray], places: np.ndarray) -> tuple[pd.DataFrame, Rows]:
    sample = index.rows.iloc[places].reset_index(drop=True)
    clusters = pd.factorize(index.clusters().to_numpy()[places])[0]
    return sample, Rows(tuple(each[places] for each in splits), dependent_groups(sample), clusters)


def _seen(index: Index, pixels: np.ndarray, places: np.ndarray, fit: Fit) -> tuple[inputs.Grids, dict[str, str]]:
    """Return the cells of the rows, and the reason where lung masks exist and are not used."""
    if not inputs.has_masks(index.rows.iloc[places]):
        return inputs.grids(index.rows, pixels, places, fit, masked=False), {}
    try:
        return inputs.grids(index.rows, pixels, places, fit, masked=True), {}
    except UnreadableImage as error:
        return inputs.grids(index.rows, pixels, places, fit, masked=False), {"lung masks": str(error)}


def _planned(
    index: Index, sample: pd.DataFrame, rows: Rows, seen: inputs.Grids
) -> tuple[list[Control], dict[str, str]]:
    """Return the controls that these rows allow, and the reason for each one left out."""
    task: dict[str, Any] = {"labels": sample["label"], "classes": index.classes}
    facts = inputs.file_facts(sample, seen)
    pictures, mixed = classifiers.pictures, classifiers.pictures_and_trees
    border = inputs.border(seen)
    hidden = (
        "the centre, three quarters of the width and height," if seen.lungs is None else "the area of the lung mask"
    )
    frame = f"A narrow frame round the image{'' if seen.cut else ', and its four corners'}."
    planned = [
        Control("border", "The border", frame, "leak", border, mixed, **task),
        Control("file_facts", "File facts", "Width, height, their ratio, colour mode and format of the file; "
                "brightness and contrast of the border. No image.", "leak", facts, classifiers.trees, **task),
        Control("blanked_centre", "The blanked centre", f"The image at {inputs.SIDE} by {inputs.SIDE}, "
                f"{hidden} blanked.", "likeness", inputs.blanked(seen), pictures, **task),
        Control("thumbnail", "The thumbnail", "The whole image at 8 by 8.", "likeness", inputs.thumbnail(seen),
                pictures, **task),
    ]  # fmt: skip
    left_out = {}
    if seen.cut and seen.lungs is None:
        planned = [control for control in planned if control.name != "blanked_centre"]
        left_out["blanked_centre"] = (
            "Images are cut to their lungs, which leaves nothing without lungs round the centre."
        )
    if sample.loc[rows.of("train"), "source"].nunique() < 2:
        return planned, left_out | {"predict_the_source": "All training images come from one source."}
    known = sorted(sample["source"].unique())
    names = (sample["source"].to_numpy()[:, None] == np.asarray(known)).astype(float)
    look = np.concatenate([inputs.thumbnail(seen), border], axis=1)
    planned += [
        Control("source", "The source", "Which data set the image came from. No image.", "leak", names,
                classifiers.linear, **task),
        Control("predict_the_source", "Predicting the source", "The border and the thumbnail; the target is the "
                "source, not the class.", "source", look, pictures, sample["source"], tuple(known)),
    ]  # fmt: skip
    return planned, left_out


def _model(test: Predictions, sample: pd.DataFrame, rows: Rows) -> Area:
    """Return the model's AUROC on the test rows of the sample, in the strata of the controls."""
    tested = rows.of("test")
    place = {key: i for i, key in enumerate(keys(test.rows))}
    places = [place[key] for key in keys(sample[tested])]
    truth = _codes(sample["label"], test.classes)[tested]
    return average(areas(test.probabilities[places], truth, rows.part[tested], rows.clusters[tested]))


def _codes(labels: pd.Series, classes: tuple[str, ...]) -> np.ndarray:
    return pd.Categorical(labels, categories=list(classes)).codes.astype(np.int64)


def _tested(control: Control, rows: Rows, model: Area, figures: int, seed: int) -> dict[str, Any]:
    """Return one item of ``controls`` in ``controls.json``."""
    truth, tested = _codes(control.labels, control.classes), rows.of("test")
    asked = (control.fit, control.features, truth, len(control.classes), rows, seed)
    given, clusters = as_tested(*asked)[tested], rows.clusters[tested]
    on_test = average(areas(given, truth[tested], rows.part[tested], clusters))
    right = accuracy(given.argmax(axis=1) == truth[tested])
    widened = 1 - (1 - LEVEL) / figures
    found = of_likeness(on_test, model, widened)
    if control.kind != "likeness":
        found = {"share": found["share"]} | of_leak(control.classes, cross_fitted(*asked), widened)
    item = {
        "name": control.name,
        "title": control.title,
        "sees": control.sees,
        "kind": control.kind,
        "auroc": on_test.figure().to_json(),
        "accuracy": right.figure(clusters, effective(clusters)).to_json(),
        **found,
        "fires": found["state"] == "fires",
    }
    if control.kind == "source":
        item["share"] = None  # its target is the source, so that it has no share of the model's gain
    return item | {"says": says(item)}


def _shown(masked: lungs.Masked, test: Predictions, figures: int) -> dict[str, Any]:
    """Return the item of the control that shows the model itself films without their lungs."""
    found = lungs.answers(masked, test)
    state = of_likeness(found.without, found.model, 1 - (1 - LEVEL) / figures)
    item = {
        "name": lungs.NAME,
        "title": lungs.TITLE,
        "sees": f"The model itself, shown test images whose lungs, found by {masked.segmenter}, are blanked.",
        "kind": "likeness",
        "auroc": found.without.figure().to_json(),
        "accuracy": found.right,
        **state,
        "fires": state["state"] == "fires",
        "lungs_only": found.only.figure().to_json(),
        "films": found.films,
        "unknown": masked.unknown,
    }
    return item | {"says": says(item)}
