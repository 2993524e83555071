"""Every figure of a table of predictions, for many vectors of row weights at once.

A bootstrap replicate is a table in which some rows stand several times and some not at all. Instead
of building it, give each row the number of times it stands there: all figures are then sums over
weighted rows, and one sort serves all replicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: The figures of a whole table and those of one class against the rest, in the order of reports.
HEADLINE = (
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "f1",
    "f1_macro",
    "auroc",
    "auprc",
    "mcc",
    "brier",
    "ece",
)
PER_CLASS = ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc", "brier")
#: Figures for which lower is better.
LOSSES = ("brier", "ece")
ECE_BINS = 15

#: ``(None, "auroc")`` is a headline figure, ``(2, "auroc")`` that of the third class.
Key = tuple[int | None, str]


@dataclass(frozen=True)
class Ranking:
    """One class against the rest: the rows by descending score, in groups of equal score.

    Only groups with a positive row are kept, since neither area changes elsewhere. ``starts`` and
    ``ends`` count the rows before and up to the end of each such group, ``positive_starts`` and
    ``positive_ends`` the positive rows alone. ``negatives`` are the negative rows in order,
    of which ``negative_starts`` and ``negative_ends`` count; both are the same array without ties between a positive
    and a negative row.
    """

    order: np.ndarray
    positives: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    positive_starts: np.ndarray
    positive_ends: np.ndarray
    negatives: np.ndarray
    negative_starts: np.ndarray
    negative_ends: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray) -> Ranking:
        """Rank `scores`, float (rows,); `positive`, bool (rows,), is the truth."""
        order = np.argsort(-scores, kind="stable")
        ends = _group_ends(scores[order])
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        before = np.concatenate([[0], np.cumsum(positive[order])])
        kept = before[ends] > before[starts]
        starts, ends = starts[kept], ends[kept]
        ranked = positive[order]
        positive_starts, positive_ends = before[starts], before[ends]
        negative_starts, negative_ends = starts - positive_starts, ends - positive_ends
        return cls(
            order=order,
            positives=order[ranked],
            starts=starts,
            ends=ends,
            positive_starts=positive_starts,
            positive_ends=positive_ends,
            negatives=order[~ranked],
            negative_starts=negative_starts,
            negative_ends=negative_starts if np.array_equal(negative_starts, negative_ends) else negative_ends,
        )

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the AUROC (Mann-Whitney, ties count half) and average precision, both (replicates,).

        `weights` is (replicates, rows). Both are NaN where the class, or the rest, has no weight.
        """
        gained = weights.take(self.positives, axis=1)
        hits = np.cumsum(gained, axis=1)
        false = _running(weights.take(self.negatives, axis=1))
        positive, negative = hits[:, -1:].sum(axis=1), false[:, -1]
        if len(self.ends) < len(self.positives):
            hits = hits.take(self.positive_ends - 1, axis=1)
            gained = np.diff(hits, axis=1, prepend=0)
        false_before = false.take(self.negative_starts, axis=1)
        tied = self.negative_ends is not self.negative_starts
        false_after = false.take(self.negative_ends, axis=1) if tied else false_before
        auroc = np.einsum("rg,rg->r", gained, false_before) + np.einsum("rg,rg->r", gained, false_after)
        # In place: of many rows most of the time would go into fresh memory.
        precision = np.add(hits, false_after, out=false_after)
        np.maximum(precision, np.finfo(np.float64).tiny, out=precision)
        np.divide(hits, precision, out=precision)
        average = np.einsum("rg,rg->r", gained, precision)
        return 1 - ratio(auroc / 2, positive * negative), np.where(negative > 0, ratio(average, positive), np.nan)


@dataclass(frozen=True)
class Calibration:
    """Rows by ascending confidence, from which the expected calibration error is computed."""

    order: np.ndarray
    excess: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, confidence: np.ndarray, right: np.ndarray) -> Calibration:
        """Sort `confidence`, float (rows,) in 0..1; `right`, bool (rows,): whether the most probable class is true."""
        order = np.argsort(confidence, kind="stable")
        ends = np.concatenate([[0], _group_ends(confidence[order])]).astype(np.int64)
        return cls(order, right[order] - confidence[order], ends)

    def error(self, weights: np.ndarray, bins: int = ECE_BINS) -> np.ndarray:
        """Return the expected calibration error with bins of equal mass, (replicates,).

        `weights` is (replicates, rows). The error is the mean over bins of abs(share right - mean confidence) (Naeini
        et al. 2015), with bins that hold equally many rows (Nixon et al. 2019). A row on the border of two bins counts
        in both by its parts, and rows of equal confidence are spread evenly, so that neither the order of the rows
        nor repeating every row changes the figure.
        """
        return np.abs(self.gaps(weights, bins)).sum(axis=1)

    def gaps(self, weights: np.ndarray, bins: int = ECE_BINS) -> np.ndarray:
        """Return each bin's signed part of `error`, (replicates, bins); above 0 for underconfidence."""
        ranked = weights.take(self.order, axis=1)
        mass = _running(ranked)
        excess = _running(ranked * self.excess)
        if len(self.ends) < mass.shape[1]:
            mass, excess = mass.take(self.ends, axis=1), excess.take(self.ends, axis=1)
        total = mass[:, -1:]
        edges = np.linspace(0, 1, bins + 1) * total
        # One search serves all replicates: the masses of each are shifted to a range of their own.
        apart = np.arange(len(weights))[:, None] * (total.max(initial=0.0) + 1)
        places = np.searchsorted((mass + apart).ravel(), (edges + apart).ravel(), side="right").reshape(edges.shape)
        after = np.clip(places - np.arange(len(weights))[:, None] * mass.shape[1], 1, mass.shape[1] - 1)
        before, reached = np.take_along_axis(mass, after - 1, axis=1), np.take_along_axis(mass, after, axis=1)
        part = np.clip(np.nan_to_num(ratio(edges - before, reached - before)), 0, 1)
        start, end = np.take_along_axis(excess, after - 1, axis=1), np.take_along_axis(excess, after, axis=1)
        return ratio(np.diff(start + part * (end - start), axis=1), total)


@dataclass(frozen=True)
class Table:
    """Predictions of one model, sorted once. Make it with `Table.of`.

    ``additive`` has a column for each cell of the confusion matrix, the squared error of each class
    and of all: figures that are plain means over rows come out of one matrix product. ``present``, bool
    (classes,), are the classes that have rows.
    """

    classes: int
    positive: int | None
    present: np.ndarray
    additive: np.ndarray
    rankings: tuple[Ranking, ...]
    calibration: Calibration

    @classmethod
    def of(cls, truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, positive: int | None) -> Table:
        """Sort the predictions of one model.

        `truth` and `predicted` are class numbers, int (rows,); `probabilities` is (rows, classes).

        `positive` is the number of the positive class, None for means over classes.
        """
        classes = probabilities.shape[1]
        cells = np.eye(classes * classes)[truth * classes + predicted]
        return cls(
            classes=classes,
            positive=positive,
            present=np.bincount(truth, minlength=classes) > 0,
            additive=np.hstack([cells, squared_errors(truth, probabilities)]),
            rankings=tuple(Ranking.of(probabilities[:, k], truth == k) for k in range(classes)),
            calibration=Calibration.of(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth),
        )

    def figures(
        self, weights: np.ndarray, sums: np.ndarray | None = None, *, calibration: bool = True
    ) -> dict[Key, np.ndarray]:
        """Return every figure, each (replicates,), for `weights` (replicates, rows), none below 0.

        `sums` are ``weights @ additive`` where they are known; without `calibration` its error, which takes the
        longest, is left out.

        NaN where a figure cannot be computed: the AUROC of a class without rows, or a mean over classes
        where one that is `present` has no weight, which would be a mean over other classes.
        """
        k = self.classes
        sums = weights @ self.additive if sums is None else sums
        confusion = sums[:, : k * k].reshape(-1, k, k)
        total = confusion.sum(axis=(1, 2))
        areas = [ranking.areas(weights) for ranking in self.rankings]
        per_class = threshold_figures(confusion) | {
            "auroc": np.stack([auroc for auroc, _ in areas], axis=1),
            "auprc": np.stack([auprc for _, auprc in areas], axis=1),
            "brier": ratio(sums[:, k * k : -1], total[:, None]),
        }
        weighted = confusion.sum(axis=2) > 0
        present = np.where((weighted >= self.present).all(axis=1, keepdims=True), weighted, False)
        whole = {
            "accuracy": ratio(np.trace(confusion, axis1=1, axis2=2), total),
            "balanced_accuracy": macro(per_class["sensitivity"], present),
            "f1_macro": macro(per_class["f1"], present),
            "mcc": np.where(present.any(axis=1), matthews(confusion), np.nan),
            "brier": ratio(sums[:, -1], total),
            "ece": self.calibration.error(weights) if calibration else np.full(len(weights), np.nan),
        }
        return gathered(headline(whole, per_class, present, self.positive), per_class)


def squared_errors(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the contribution of each row to the Brier score of each class and, last, of all: (rows, classes + 1)."""
    classes = probabilities.shape[1]
    hot = np.eye(classes)[truth]
    normalised = probabilities / probabilities.sum(axis=1, keepdims=True)
    # Scaled by half for two classes, as Brier meant it for one event (and scikit-learn does).
    whole = ((normalised - hot) ** 2).sum(axis=1, keepdims=True) / (2 if classes == 2 else 1)
    return np.hstack([(probabilities - hot) ** 2, whole])


def threshold_figures(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return figures of each class against the rest, (..., classes), from counts (..., true, predicted).

    A class without rows has no sensitivity and no F1; one that is never predicted has no precision.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, claimed = confusion.sum(axis=-1), confusion.sum(axis=-2)
    rest = confusion.sum(axis=(-2, -1))[..., None] - true
    return {
        "sensitivity": ratio(hits, true),
        "specificity": ratio(rest - claimed + hits, rest),
        "precision": ratio(hits, claimed),
        "f1": np.where(true > 0, ratio(2 * hits, true + claimed), np.nan),
    }


def headline(
    whole: Mapping[str, np.ndarray],
    per_class: Mapping[str, np.ndarray],
    present: np.ndarray,
    positive: int | None,
) -> dict[str, np.ndarray]:
    """Add to `whole` the figures of the positive class, or their means over the classes present.

    In a mean, the precision of a class that has rows and is never predicted counts as 0.
    """
    figures = dict(whole)
    for name in ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc"):
        values = per_class[name]
        if positive is not None:
            figures[name] = values[:, positive]
        else:
            figures[name] = macro(np.nan_to_num(values) if name == "precision" else values, present)
    return {name: figures[name] for name in HEADLINE}


def gathered(whole: Mapping[str, np.ndarray], per_class: Mapping[str, np.ndarray]) -> dict[Key, np.ndarray]:
    """Return one mapping of headline figures, (replicates,), and figures by class, (replicates, classes)."""
    figures: dict[Key, np.ndarray] = {(None, name): values for name, values in whole.items()}
    for name in PER_CLASS:
        figures |= {(i, name): values for i, values in enumerate(per_class[name].T)}
    return figures


def matthews(confusion: np.ndarray) -> np.ndarray:
    """Return Matthews's correlation for any number of classes (Gorodkin 2004), from counts (..., true, predicted).

    NaN where all rows are of one class; 0, its limit, where all are predicted as one class.
    """
    true, claimed = confusion.sum(axis=-1), confusion.sum(axis=-2)
    total = confusion.sum(axis=(-2, -1))
    hits = np.trace(confusion, axis1=-2, axis2=-1)
    spread_true = total**2 - (true**2).sum(axis=-1)
    spread_claimed = total**2 - (claimed**2).sum(axis=-1)
    above = hits * total - (true * claimed).sum(axis=-1)
    scale = np.sqrt(spread_true) * np.sqrt(spread_claimed)
    return np.where(spread_true > 0, np.nan_to_num(ratio(above, scale)), np.nan)


def macro(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the mean of `values` (..., classes) over the classes `present`, bool (..., classes)."""
    return ratio(np.where(present, values, 0).sum(axis=-1), present.sum(axis=-1))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return `above` / `below`, NaN where `below` is 0."""
    below = np.broadcast_to(np.asarray(below, dtype=np.float64), np.shape(above))
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _group_ends(ordered: np.ndarray) -> np.ndarray:
    """Return the number of values up to the end of each run of equal values."""
    if not len(ordered):
        return np.zeros(0, dtype=np.int64)
    return np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(ordered))


def _running(values: np.ndarray) -> np.ndarray:
    """Return the sums of the first 0, 1, ... columns: (replicates, columns + 1)."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def span(key: Key, classes: int) -> tuple[float, float]:
    """Return the least and greatest possible value of a figure."""
    if key == (None, "brier") and classes > 2:
        return 0.0, 2.0
    return (-1.0 if key[1] == "mcc" else 0.0), 1.0
