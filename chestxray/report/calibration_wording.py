"""Describes calibration in plain sentences: slope and intercept first, then the error with its noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chestxray.evaluation.figure_format import in_sentence, number, with_interval
from chestxray.report.formatting import value_of


def sentences(measures: Mapping[str, Any] | None, positive: str | None, level: str = "95%") -> list[str]:
    """Return sentences on the field ``calibration`` of ``metrics.json``; an empty list if it is absent."""
    if not measures:
        return []
    slope_and_intercept = [_slope(measures["slope"], level), _intercept(measures["intercept"], positive, level)]
    return [sentence for sentence in (*slope_and_intercept, error(measures["ece"], level)) if sentence]


def in_figure(measures: Mapping[str, Any] | None) -> str:
    """Return slope and intercept in short form, for a legend."""
    parts = [
        f"{name} {with_interval(figure, 2)}"
        for name in ("slope", "intercept")
        if value_of(figure := (measures or {}).get(name)) is not None
    ]
    return "\n".join(["smooth curve, 95% band", *parts])


def _slope(slope: Mapping[str, float | None], level: str) -> str:
    if value_of(slope) is None:
        return "The calibration slope is not available: the classes are separated, or only one has images."
    return f"Calibration slope {in_sentence(slope, level)}: {direction(slope)}."


def direction(slope: Mapping[str, float | None]) -> str:
    """Return the interpretation of a calibration slope, as far as its confidence interval allows one."""
    low, high = slope.get("low"), slope.get("high")
    if low is None or high is None:
        return "1 is as it should be"
    if high < 1:
        return "the probabilities are too extreme, the model is too sure of itself"
    if low > 1:
        return "the probabilities are too moderate (underconfident)"
    return "in line with 1, which is as it should be"


def _intercept(intercept: Mapping[str, float | None], positive: str | None, level: str) -> str:
    if value_of(intercept) is None or positive is None:
        return ""
    low, high = intercept.get("low"), intercept.get("high")
    what = "0 is as it should be"
    if low is not None and high is not None:
        what = "in line with 0, which is as it should be"
        if low > 0 or high < 0:
            what = f"{positive} is {'more' if low > 0 else 'less'} frequent here than the probabilities say"
    return f"Calibration intercept {in_sentence(intercept, level)}: {what}."


def error(ece: Mapping[str, Any], level: str = "95%") -> str:
    """Return a sentence on the expected calibration error and on the value that noise alone would give."""
    corrected = ece["corrected"]
    if value_of(corrected) is None or ece["noise"] is None:
        return ""
    plain, noise, most = (number(ece[name]) for name in ("plain", "noise", "noise_up_to"))
    return (
        f"Expected calibration error {with_interval(corrected, level=level)}, corrected for noise. "
        f"Uncorrected it is {plain}; a perfectly calibrated model would get {noise} on as many images of as many "
        f"patients, and up to {most} in 95 of 100 tests."
    )
