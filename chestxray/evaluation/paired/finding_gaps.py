"""Differences of the figures of findings between subgroups, corrected over all findings together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from chestxray.evaluation.finding_predictions import FindingPredictions, Known
from chestxray.evaluation.paired.p_value_function import ALPHA
from chestxray.evaluation.paired.subgroup_gaps import INTERACTION, METHOD, correct, untested


def finding_gaps(predictions: FindingPredictions, columns: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Return the differences between the groups of all `columns` for each finding, ready for JSON.

    Each finding is compared as by `subgroup_gaps.gaps`, on the rows where it is known; p-values are corrected
    (Holm 1979) over all findings, columns, groups and figures. ``worst`` names, for each finding, column and figure,
    the group of the lowest figure where the correction leaves it below the others, and nothing elsewhere: of many
    groups that do not differ one is always the lowest. Findings that are not scored (`Known.too_few`) are left out.
    None where no column has two groups.

    `columns`: the group of each row by each column, str (rows,), ``""`` where it is not known.
    """
    findings, tests, left_out = {}, [], dict[str, None]()
    for name in predictions.findings:
        table = predictions.of_finding(name)
        if Known.of(table, name).too_few:
            continue
        places = np.flatnonzero(~np.isnan(predictions.truth[:, predictions.findings.index(name)]))
        given = {column: np.asarray(groups)[places] for column, groups in columns.items()}
        findings[name], asked, many = untested(table, given, 1)
        tests += asked
        left_out |= dict.fromkeys(many)
    correct(tests, *findings.values())
    if not any(findings.values()) and not left_out:
        return None
    content = {"method": METHOD, "interaction": INTERACTION, "tests": len(tests), "findings": findings}
    return content | {"worst": worst(findings), "left_out": list(left_out)}


def worst(findings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return, for each finding, column and figure, the group that is below the others after correction.

    With more than two groups, both the interaction test of the figure and the gap of the group must be significant.
    """
    found = []
    for name, columns in findings.items():
        for column, figures in columns.items():
            for figure, entry in figures.items():
                group, gap = _lowest(entry)
                corrected = [test["p_holm"] for test in (gap, entry["interaction"])]
                if gap["value"] is None or gap["value"] >= 0 or any(p is None or p >= ALPHA for p in corrected):
                    continue
                plain = {key: gap[key] for key in ("value", "low", "high", "p", "p_holm")}
                found.append({"finding": name, "column": column, "figure": figure, "group": group} | plain)
    return found


def _lowest(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the group with the lowest gap, and its gap."""
    groups = entry["groups"]
    if len(groups) == 1:
        (group, gap), other = next(iter(groups.items())), entry["against"]
        if gap["value"] is None or gap["value"] <= 0:
            return group, gap
        turned = {"value": -gap["value"], "low": _negative(gap["high"]), "high": _negative(gap["low"])}
        return other, gap | turned
    return min(groups.items(), key=lambda item: np.inf if item[1]["value"] is None else item[1]["value"])


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
