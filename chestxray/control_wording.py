"""Controls in words: what each figure means, and the verdict on the model's score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: A control fires for good where it has this share of what the model gains over a coin toss.
SHARE = 0.75


def settle_source(tested: Sequence[dict[str, Any]]) -> None:
    """That images show their source is a shortcut only where the source tells the class: say which in the items."""
    items = {item["name"]: item for item in tested}
    if "predict_the_source" not in items:
        return
    looks = items["predict_the_source"]
    known = looks["fires"]
    looks["fires"] = known and items["source"]["fires"]
    if looks["fires"]:
        told = "Images show which source they are from (AUROC {}), and the source tells the class."
    elif known:
        told = "Images show which source they are from (AUROC {}), but the source hardly tells the class."
    else:
        told = "Images hardly show which source they are from (AUROC {})."
    looks["says"] = told.format(_told(looks["auroc"]))


def says(item: Mapping[str, Any]) -> str:
    """One sentence: what the figure means."""
    if item["auroc"]["value"] is None:
        return f"{item['title']} could not be scored on these test images."
    label, share = item["strongest"]["class"], item["share"]
    one = f", for {label} {_told(item['strongest']['auroc'])}" if label and item["fires"] else ""
    reached = f"{item['title']} alone: AUROC {_told(item['auroc'])}{one}"
    if item["kind"] == "leak":
        if not item["fires"]:
            return f"{reached}; no sign of a shortcut here."
        if share is None or share >= SHARE:
            return f"{reached}: this score cannot be taken for disease."
        return f"{reached}: part of the score may come from there, not from disease."
    part = "" if share is None else f", {100 * share:.0f}% of what the model gains over a coin toss"
    if not item["fires"]:
        return f"{reached}{part}."
    return f"{reached}{part}: little of the score needs a close look into the lungs."


def verdict(model: Mapping[str, float | None], tested: Sequence[Mapping[str, Any]]) -> str:
    """The model's AUROC beside the highest control's, in a sentence or two."""
    scored = [item for item in tested if item["kind"] != "source" and item["auroc"]["value"] is not None]
    if model["value"] is None or not scored:
        return "The AUROC of the model or of the controls is not available, so that they cannot be compared."
    highest = max(scored, key=lambda item: item["auroc"]["value"])
    best = f"{_inner(highest)}) {_told(highest['auroc'])}"
    told = f"The model's AUROC is {_told(model)}, that of the highest control ({best}."
    leaks = [item for item in tested if item["fires"] and item["kind"] == "leak"]
    if strong := [item for item in leaks if item["share"] is None or item["share"] >= SHARE]:
        named = "" if highest in strong else f" {strong[0]['title']} alone: {_told(strong[0]['auroc'])}."
        return f"{told}{named} This score cannot be taken for disease."
    if leaks:
        return f"{told} Part of the score may come from {_listed(leaks)}."
    if fired := [item for item in tested if item["fires"]]:
        return f"{told} Little of the score needs a close look into the lungs ({_listed(fired)})."
    return f"{told} No control explains the score."


def _listed(items: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(map(_inner, items))


def _inner(item: Mapping[str, Any]) -> str:
    return item["title"][0].lower() + item["title"][1:]


def _told(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return "not available"
    between = "" if figure["low"] is None else f" ({figure['low']:.2f} to {figure['high']:.2f})"
    return f"{figure['value']:.2f}{between}"
