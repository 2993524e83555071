"""Sentences about the shortcut controls: on each control, and the verdict on the score of one or several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chestxray.evaluation.figure_format import with_interval

#: A leak fires where the learnable AUROC is above this.
LIMIT = 0.55
#: A leak is excluded where the interval of the learnable AUROC ends below this.
EXCLUDED = 0.6
#: A control explains the score where it reaches this share of the model's gain over an AUROC of .5.
SHARE = 0.75
#: The states of a control, the most serious first.
STATES = ("fires", "undecided", "excluded")
#: The findings of the controls of a run, the most serious first.
FINDINGS = ("shortcut", "part", "likeness", "undecided", "none", "unknown")

Item = Mapping[str, Any]


def settle_source(tested: Sequence[dict[str, Any]]) -> None:
    """Set state and sentence of the control ``predict_the_source`` in `tested`.

    That images show their source is a shortcut only where the source predicts the class: its state is then that of
    the control ``source``.
    """
    items = {item["name"]: item for item in tested}
    if "predict_the_source" not in items:
        return
    looks, source = items["predict_the_source"], items["source"]
    if looks["fires"]:
        looks["state"], looks["fires"] = source["state"], source["fires"]
        sentence = {
            "fires": "Images show which source they are from (AUROC {}), and the source predicts the class.",
            "excluded": "Images show which source they are from (AUROC {}), but the source hardly predicts the class.",
            "undecided": "Images show which source they are from (AUROC {}); there are too few to "
            "tell whether the source predicts the class.",
        }[source["state"]]
    elif looks["state"] == "excluded":
        sentence = "Images hardly show which source they are from (AUROC {})."
    else:
        sentence = "Too few images to tell whether they show which source they are from (AUROC {})."
    looks["says"] = sentence.format(with_interval(looks["learnt"]["auroc"], 2))


def says(item: Item) -> str:
    """Return the figure of a control in one sentence; ``""`` for one that predicts the source, see `settle_source`."""
    if item["kind"] == "source":
        return ""
    if "lungs_only" in item:
        return _of_lungs(item)
    return _of_likeness(item) if item["kind"] == "likeness" else _of_leak(item)


def _of_leak(item: Item) -> str:
    learnt = item["learnt"]
    if learnt["auroc"]["value"] is None:
        return f"{item['title']} could not be scored on these images."
    of_class = f" for {learnt['class']}" if learnt["class"] else ""
    reached = f"From {_inner(item)} alone an AUROC of {with_interval(learnt['auroc'], 2)} could be learnt{of_class}"
    if item["state"] == "excluded":
        return f"{reached}; {EXCLUDED:.2f} or more is excluded."
    if item["state"] == "undecided":
        room = "nothing is excluded" if item["up_to"] is None else f"{item['up_to']:.2f} is not excluded"
        return f"{reached}: too few images to tell; {room}."
    on_test = f"{reached}; its AUROC on the test images is {with_interval(item['auroc'], 2)}{_share_of(item)}"
    if _explains(item):
        return f"{on_test}: this score cannot be taken as evidence that disease is recognised."
    return f"{on_test}: part of the score may come from this, not from disease."


def _of_likeness(item: Item) -> str:
    if item["auroc"]["value"] is None:
        return f"{item['title']} could not be scored on these test images."
    reached = f"{item['title']} alone: AUROC {with_interval(item['auroc'], 2)}"
    if item["share"]["value"] is None:
        return f"{reached}; the model has no gain over an AUROC of 0.5 that it could explain."
    reached += _share_of(item)
    if item["state"] == "fires":
        return f"{reached}: most of the score can be reached without a detailed view of the lungs."
    if item["state"] == "excluded":
        return f"{reached}: {SHARE:.0%} or more is excluded."
    return f"{reached}: too few test images to tell; {_room(item)}."


def _of_lungs(item: Item) -> str:
    films = f"{item['films']} test images"
    if item["auroc"]["value"] is None:
        return f"The model could not be scored on {films} whose lungs are blanked."
    reached = (
        f"Shown {films} with their lungs blanked, the model itself reaches an AUROC of "
        f"{with_interval(item['auroc'], 2)}{_share_of(item)}"
    )
    if item["share"]["value"] is None:
        reached += "; it has no gain over an AUROC of 0.5 on the whole images"
    elif item["state"] == "fires":
        reached += ": it hardly needs the lungs"
    elif item["state"] == "excluded":
        reached += f": {SHARE:.0%} or more is excluded"
    else:
        reached += f": too few test images to tell; {_room(item)}"
    if item["lungs_only"]["value"] is not None:
        reached += f". Shown the lungs alone, it reaches {with_interval(item['lungs_only'], 2)}"
    if item["unknown"]:
        reached += f". In {item['unknown']} more no lungs were found"
    return f"{reached}."


def finding(tested: Sequence[Item]) -> str:
    """Return the most serious of `FINDINGS` that applies."""
    leaks = [item for item in tested if item["fires"] and item["kind"] == "leak"]
    if any(map(_explains, leaks)):
        return "shortcut"
    if leaks:
        return "part"
    if any(item["fires"] and item["kind"] == "likeness" for item in tested):
        return "likeness"
    return "undecided" if any(item["state"] == "undecided" for item in tested) else "none"


def verdict(model: Mapping[str, float | None], tested: Sequence[Item]) -> str:
    """Return the verdict in sentences: the model's AUROC, the highest control's, and the finding."""
    own = [item for item in tested if item["kind"] != "source"]
    scored = [item for item in own if item["auroc"]["value"] is not None]
    opening = ""
    if model["value"] is not None and scored:
        highest = max(scored, key=lambda item: item["auroc"]["value"])
        opening = (
            f"The model's AUROC is {with_interval(model, 2)}, that of the highest control ({_inner(highest)}) "
            f"{with_interval(highest['auroc'], 2)}. "
        )
    leaks = [item for item in own if item["fires"] and item["kind"] == "leak"]
    if strong := [item for item in leaks if _explains(item)]:
        return (
            f"{opening}This score cannot be taken as evidence that disease is recognised: as much could be learnt from "
            f"{_listed(strong)} alone, whether or not this model did."
        )
    undecided = [item for item in own if item["state"] == "undecided"]
    room = f" Too few images to tell more: {_not_excluded(undecided)}." if undecided else ""
    if leaks:
        return (
            f"{opening}Part of the score may come from {_listed(leaks)}, from which it could be learnt, whether or not "
            f"this model did.{room}"
        )
    if fired := [item for item in own if item["fires"]]:
        return (
            f"{opening}Most of the score can be reached without a detailed view of the lungs ({_listed(fired)}).{room}"
        )
    if undecided:
        return f"{opening}Too few images to tell whether a control explains the score: {_not_excluded(undecided)}."
    return (
        f"{opening}No control explains the score: it is excluded that an AUROC of {EXCLUDED:.2f} or more could be "
        f"learnt from what shows no disease, and that a reduced or blanked image reaches {SHARE:.0%} of the model's "
        "gain."
    )


def together(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the most serious finding over several trainings of a model, and the controls that fire in any.

    `found` are contents of ``controls.json``, empty where no controls were run.
    """
    known = [content for content in found if content]
    if not known:
        return {"finding": "unknown", "fires": [], "titles": [], "verdict": "No controls were run.", "trainings": 0}
    gravest = min(known, key=lambda content: FINDINGS.index(_finding(content)))
    worst = _finding(gravest)
    # A likeness shows some disease: for a shortcut, or a part of one, only the leaks are named.
    kind = "likeness" if worst == "likeness" else "leak"
    fired = {item["name"]: item for content in known for item in content["controls"] if item["fires"]}
    named = [_inner(item) for item in fired.values() if item["kind"] == kind]
    return {
        "finding": worst,
        "fires": list(fired),
        "titles": named,
        "verdict": gravest["verdict"],
        "trainings": len(known),
    }


def short(summary: Mapping[str, Any]) -> str:
    """Return the result of `together` in a few words, for a table."""
    return {
        "shortcut": "could be a shortcut",
        "part": "part could be a shortcut",
        "likeness": "needs little detail of the lungs",
        "undecided": "too few images to tell",
        "none": "none explains it",
        "unknown": "not run",
    }[summary["finding"]]


def beside(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return sentences on the controls of several models, the most serious first.

    `summaries` holds the result of `together` by the name of the model.
    """
    sentences = []
    for kind in FINDINGS:
        of = {name: summary for name, summary in summaries.items() if summary["finding"] == kind}
        if not of:
            continue
        many = len(of) > 1
        score = f"score{'s' if many else ''} of {_joined(list(of))}"
        titles = _joined(list(dict.fromkeys(title for summary in of.values() for title in summary["titles"])))
        said = {
            "shortcut": f"The {score} cannot be taken as evidence that disease is recognised: as much could be "
            f"learnt from what shows no disease ({titles}), whether or not {'these models' if many else 'it'} did. "
            "A higher score need not mean that disease is recognised better.",
            "part": f"Part of the {score} may come from {titles}, not from disease.",
            "likeness": f"Most of the {score} can be reached without a detailed view of the lungs ({titles}).",
            "undecided": f"Whether a control explains the {score} cannot be told from so few images.",
            "none": f"No control explains the {score}.",
            "unknown": f"No controls were run for {_joined(list(of))}: whether a shortcut explains the "
            f"score{'s' if many else ''} is not known.",
        }
        sentences.append(said[kind])
    return sentences


def state(item: Item) -> str:
    """Return one of `STATES`. Folders of versions without states have ``fires`` alone."""
    return str(item.get("state", "fires" if item["fires"] else "undecided"))


def _finding(content: Mapping[str, Any]) -> str:
    """Return one of `FINDINGS`, also for folders of versions without findings."""
    leak = any(item["fires"] and item["kind"] == "leak" for item in content["controls"])
    before = "part" if leak else "likeness" if content.get("fires") else "undecided"
    return str(content.get("finding", before))


def _explains(item: Item) -> bool:
    """Return whether a leak that fires reaches `SHARE` of the model's gain."""
    share = item["share"]["value"]
    return share is None or share >= SHARE


def _not_excluded(items: Sequence[Item]) -> str:
    rooms = []
    for item in items:
        if item["kind"] == "leak":
            reach = "any AUROC" if item["up_to"] is None else f"an AUROC of {item['up_to']:.2f}"
            rooms.append(f"that {reach} could be learnt from {_inner(item)}")
        elif item["share"]["value"] is None:
            rooms.append(f"that {_inner(item)} does as well")
        else:
            reach = "all" if item["up_to"] is None else f"{item['up_to']:.0%}"
            rooms.append(f"that {_inner(item)} reaches {reach} of the model's gain")
    return f"it is not excluded {_joined(rooms)}"


def _room(item: Item) -> str:
    return "any share is possible" if item["up_to"] is None else f"{item['up_to']:.0%} is not excluded"


def _share_of(item: Item) -> str:
    share = item["share"]
    if share["value"] is None:
        return ""
    high = "any share" if share["high"] is None else f"{share['high']:.0%}"
    return f", {share['value']:.0%} ({share['low']:.0%} to {high}) of the model's gain over an AUROC of 0.5"


def _listed(items: Sequence[Item]) -> str:
    return _joined([_inner(item) for item in items])


def _joined(names: Sequence[str]) -> str:
    if not names:
        return ""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _inner(item: Item) -> str:
    return item["title"][0].lower() + item["title"][1:]
