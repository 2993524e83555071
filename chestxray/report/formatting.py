"""Formats numbers, and explains performance measures to readers without training in statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chestxray.evaluation.figure_format import FigureFields


def whole(count: int | None) -> str:
    """Return a count with thousands separators, or ``not known`` for None.

    >>> whole(21802784), whole(None)
    ('21,802,784', 'not known')
    """
    return "not known" if count is None else f"{count:,}"


def p_text(p: float | None) -> str:
    """Return a p-value as it is quoted in a text.

    >>> p_text(0.00001), p_text(0.0421), p_text(None)
    ('< 0.001', '0.042', '-')
    """
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def value_of(figure: FigureFields | None) -> float | None:
    """Return the value of a figure, or None if it is not available."""
    return (figure or {}).get("value")


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count and its noun.

    >>> plural(1, "image"), plural(2, "class", "classes")
    ('1 image', '2 classes')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Return a number of seconds as readable text.

    >>> duration(0.42), duration(75), duration(7300)
    ('0.4 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def in_hundred(value: float) -> str:
    """Return a proportion (0 to 1) as a count out of 100, which most people read more easily.

    >>> in_hundred(0.931), in_hundred(0.999)
    ('about 93 of 100', 'more than 99 of 100')
    """
    hundred = round(100 * value)
    if hundred in (0, 100) and value not in (0, 1):
        return "more than 99 of 100" if hundred else "fewer than 1 of 100"
    return f"{'' if value in (0, 1) else 'about '}{hundred} of 100"


@dataclass(frozen=True)
class Meaning:
    """A figure's name and explanation.

    ``binary`` (two classes) and ``many`` (more classes) take the value as a count out of 100, the value, and the
    positive class, and return the explanation. ``better``: whether a ``higher`` or a ``lower`` value is better.
    """

    title: str
    binary: Callable[[str, float, str], str]
    many: Callable[[str, float, str], str]
    better: str = "higher"


def _same(title: str, say: Callable[[str, float, str], str], better: str = "higher") -> Meaning:
    return Meaning(title, say, say, better)


#: In the order of the report.
MEANINGS: Mapping[str, Meaning] = {
    "auroc": Meaning(
        "AUROC",
        lambda n, v, p: (
            f"Shown one image with {p} and one without, the model scores the one with {p} higher in {n} "
            "such pairs. 0.5 is a coin toss."
        ),
        lambda n, v, p: (
            "Shown one image of a class and one of another, the model gives the first the higher score "
            f"for that class in {n} such pairs, averaged over the classes. 0.5 is a coin toss."
        ),
    ),
    "auprc": Meaning(
        "AUPRC",
        lambda n, v, p: (
            f"Precision, averaged over how much of {p} is found. To be compared with the share of {p} among "
            "the images, which is what guessing gets."
        ),
        lambda n, v, p: (
            "Precision, averaged over how much of a class is found, then over the classes. To be compared "
            "with the share of each class, which is what guessing gets."
        ),
    ),
    "accuracy": _same("Accuracy", lambda n, v, p: f"The answer is right for {n} images, whatever their class."),
    "balanced_accuracy": _same(
        "Balanced accuracy",
        lambda n, v, p: f"As accuracy, but every class counts alike, however rare: {n} images.",
    ),
    "sensitivity": Meaning(
        "Sensitivity",
        lambda n, v, p: f"Of images that show {p}, the model finds {n}. The others are missed.",
        lambda n, v, p: f"Of images of a class, the model recognises {n}, averaged over the classes.",
    ),
    "specificity": Meaning(
        "Specificity",
        lambda n, v, p: f"Of images without {p}, the model says so for {n}. The others are false alarms.",
        lambda n, v, p: f"Of images that are not of a class, {n} are not called it, averaged over the classes.",
    ),
    "precision": Meaning(
        "Precision",
        lambda n, v, p: f"When the model says {p}, it is so for {n}. Changes with how common {p} is.",
        lambda n, v, p: (
            f"When the model names a class, it is so for {n}, averaged over the classes. Changes with how "
            "common each class is."
        ),
    ),
    "f1": Meaning(
        "F1",
        lambda n, v, p: f"Sensitivity and precision for {p} in one number (harmonic mean), 1 at best.",
        lambda n, v, p: "Sensitivity and precision in one number (harmonic mean), averaged over the classes.",
    ),
    "f1_macro": _same("F1, macro", lambda n, v, p: "F1 of each class in turn, averaged; every class counts alike."),
    "mcc": _same(
        "MCC",
        lambda n, v, p: (
            "Matthews correlation of answers and truth: 1 is perfect, 0 is no better than guessing, below 0 is worse."
        ),
    ),
    "brier": _same(
        "Brier score",
        lambda n, v, p: "Mean squared distance of the stated probabilities from what was true; 0 at best.",
        "lower",
    ),
    "ece": _same(
        "ECE",
        lambda n, v, p: (
            f"Expected calibration error: the stated probability of the most probable class and the share of images "
            f"that are of it differ by about {100 * v:.0f} percentage points."
        ),
        "lower",
    ),
}


def title(name: str) -> str:
    """Return the display name of a figure."""
    return MEANINGS[name].title if name in MEANINGS else name.replace("_", " ").capitalize()


def meaning(name: str, value: float | None, positive: str | None) -> str:
    """Explain a figure's value in one or two plain sentences; return an empty string if the figure is unknown."""
    if name not in MEANINGS:
        return ""
    if value is None:
        return "Could not be computed on these images, for example because a class has none of them."
    known = MEANINGS[name]
    say = known.binary if positive else known.many
    return say(in_hundred(value), value, positive or "")


def published(facts: Mapping[str, str] | None) -> dict[str, str]:
    """Return title, direction and explanation of the figure of a plugin from its ``facts`` in ``metrics.json``.

    >>> published({"title": "Youden", "better": "higher", "meaning": "Of both errors.", "reference": "Youden 1950"})
    {'title': 'Youden', 'better': 'higher', 'meaning': 'Of both errors. Reference: Youden 1950.'}
    """
    if facts is None:
        return {}
    reference = f"Reference: {facts['reference'].rstrip('.')}." if facts["reference"] else ""
    return {
        "title": facts["title"],
        "better": facts["better"],
        "meaning": " ".join(filter(None, [facts["meaning"], reference])),
    }


def ordered(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures in the order of `MEANINGS`, followed by any others."""
    first = {name: figures[name] for name in MEANINGS if name in figures}
    return first | {name: item for name, item in figures.items() if name not in first}
