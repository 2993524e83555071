"""Curves over all thresholds, and how far probabilities can be taken at their word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chestxray.figures.style import (
    FAINT,
    PALETTE,
    Interval,
    absent,
    canvas,
    line_style,
    shortened,
    spoken,
    styled,
    unit_square,
)

#: With more curves than this, the legend stands beside the plot, not below it.
_MOST_BELOW = 6


@styled
def roc(
    truth: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    areas: Mapping[str, Interval],
    positive: str | None = None,
) -> Figure:
    """Sensitivity against 1 - specificity: one curve a class against the rest, or `positive` alone.

    `truth` holds class numbers (rows,), `probabilities` is (rows, classes); `areas` gives the
    AUROC with its interval, class by class. A class without images on both sides has no curve.
    """
    figure, ax = canvas(*_size(classes, positive))
    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", label="chance")
    for i in _drawn(classes, positive):
        hit, score = truth == i, probabilities[:, i]
        if hit.all() or not hit.any():
            continue
        true_positive, false_positive = _counts_by_threshold(hit, score)
        x = np.concatenate([[0], false_positive / (~hit).sum()])
        y = np.concatenate([[0], true_positive / hit.sum()])
        ax.plot(x, y, label=_label(classes[i], "AUROC", areas), **line_style(i))
    unit_square(ax, "1 - specificity (share of the others called positive)", "Sensitivity (share found)")
    _legend(figure, ax)
    return figure


@styled
def precision_recall(
    truth: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    areas: Mapping[str, Interval],
    positive: str | None = None,
) -> Figure:
    """Precision against recall, arguments as for `roc`; dotted: the class's share of the images,
    which is the precision of a coin.
    """
    figure, ax = canvas(*_size(classes, positive))
    for i in _drawn(classes, positive):
        hit, score = truth == i, probabilities[:, i]
        if not hit.any():
            continue
        true_positive, false_positive = _counts_by_threshold(hit, score)
        precision = true_positive / (true_positive + false_positive)
        recall = true_positive / hit.sum()
        style = line_style(i)
        ax.step(
            np.concatenate([[0], recall]), np.concatenate([precision[:1], precision]), where="pre",
            label=_label(classes[i], "AUPRC", areas), **style,
        )  # fmt: skip
        ax.axhline(hit.mean(), color=style["color"], linewidth=1, linestyle=":", alpha=0.8)
    ax.plot([], [], color=FAINT, linewidth=1, linestyle=":", label="chance: share of the class")
    unit_square(ax, "Recall = sensitivity (share found)", "Precision (share right of those called)")
    _legend(figure, ax)
    return figure


@styled
def reliability(
    confidence: np.ndarray,
    right: np.ndarray,
    error: Interval | None = None,
    bins: int = 10,
    before: np.ndarray | None = None,
) -> Figure:
    """Stated probability of the answer against the share of right answers, in bins of equally many
    images with 95% Wilson intervals, above a histogram of the stated probabilities.

    `confidence` (rows,) in 0..1; `right` (rows,) whether it came true; `error` is the expected
    calibration error, written into the legend; `before` (rows,) the probabilities before calibration,
    drawn faint.
    """
    confidence, right = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    if not confidence.size:
        return absent("No test image to compare probabilities with.")
    figure, (upper, lower) = canvas(5.2, 6.0, rows=2, sharex=True, height_ratios=(4, 1))
    # Ten images at least in a bin: of fewer, a share says next to nothing.
    count = max(min(bins, confidence.size // 10), 1)
    groups, stated, observed = _bins(confidence, right, count)
    low, high = np.transpose([_wilson(right[group].sum(), group.size) for group in groups])
    upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", label="probabilities hold")
    upper.vlines(stated, low, high, color=PALETTE[0], alpha=0.35, linewidth=2.5)
    if before is not None:
        _, once, then = _bins(np.asarray(before, dtype=float), right, count)
        upper.plot(once, then, "s--", color=FAINT, markersize=4, label="before calibration")
    label = "test images" if error is None else f"test images; ECE {spoken(error)}"
    upper.plot(stated, observed, "o-", color=PALETTE[0], markersize=5, label=label)
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Share of answers that are right")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    lower.hist(confidence, bins=np.linspace(0, 1, 21).tolist(), color=PALETTE[5], edgecolor="white")
    lower.set(xlabel="Stated probability of the answer", ylabel="Images\n(number)")
    return figure


def _bins(confidence: np.ndarray, right: np.ndarray, count: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Rows, mean confidence and share of right answers of `count` groups of equally many rows."""
    groups = np.array_split(np.argsort(confidence, kind="stable"), count)
    stated = np.array([confidence[group].mean() for group in groups])
    return groups, stated, np.array([right[group].mean() for group in groups])


def _wilson(hits: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's (1927) interval of a share, which holds for few images and for shares near 0 and 1."""
    share, scale = hits / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    reach = z / scale * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - reach, centre + reach


def _drawn(classes: Sequence[str], positive: str | None) -> list[int]:
    if positive is None or positive not in classes:
        return list(range(len(classes)))
    return [list(classes).index(positive)]


def _size(classes: Sequence[str], positive: str | None) -> tuple[float, float]:
    curves = len(_drawn(classes, positive))
    return (5.2, 5.1 + 0.19 * curves) if curves <= _MOST_BELOW else (8.4, 5.2)


def _label(name: str, kind: str, areas: Mapping[str, Interval]) -> str:
    return f"{shortened(name)}: {kind} {spoken(areas.get(name))}"


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    # Never inside: good curves run along one edge and prevalences along another.
    if len(handles) <= _MOST_BELOW + 1:
        figure.legend(handles, labels, loc="outside lower center", fontsize=9, frameon=False)
    else:
        size = 8 if len(handles) <= 24 else 6
        figure.legend(handles, labels, loc="outside right center", fontsize=size, frameon=False)


def _counts_by_threshold(hit: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at each distinct score, from the strictest threshold to the laxest."""
    order = np.argsort(-score, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(score[order])), hit.size - 1]  # equal scores fall together
    true_positive = np.cumsum(hit[order])[last]
    return true_positive, last + 1 - true_positive
