"""What pages say of the checks of heat maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chestxray.recipe import GRADCAM
from chestxray.report.heatmap_wording import title
from chestxray.runs.run_folder import Run

#: A check by its name, as a heading.
TITLES = {
    "discrimination": "What the model has learnt",
    "cascading-randomisation": "Weights made random from the top",
    "single-layer-randomisation": "Weights of one layer made random",
    "other-label": "Map of another label",
    "shuffled-labels": "Model trained on shuffled labels",
    "deletion": "Marked pixels removed",
    "insertion": "Marked pixels added",
    "road": "Marked pixels removed, by ROAD",
    "stability": "Small shifts, rotations and noise",
    "pointing-game": "Strongest point on the finding",
    "share-inside": "Share of the map on the finding",
    "iou": "Overlap with the finding",
    "inside-lungs": "Share of the map inside the lungs",
    "repeatability": "Same map after another training",
    "reproducibility": "Same map of another model",
}
_SAID = {
    "passes": "The maps pass every check that was made. That does not make a map right for one film.",
    "doubtful": "The maps are doubtful: at least one check could not be passed or failed with these images.",
    "fails": "The maps fail: the first rows of the table say by what.",
}


#: The worst first, as they are shown.
_ORDER = ("fails", "doubtful", "passes")
_BADGES = {
    "passes": "passes the checks of its maps",
    "doubtful": "is doubtful by the checks of its maps",
    "fails": "fails the checks of its maps",
    "": "could not be checked",
}


def shown(run: Run) -> dict[str, Any] | None:
    """Return what the report shows of the checks of the method that drew the panel: ``summary``, ``method``,
    ``images``, and ``rows`` of title, verdict and sentence, those that fail first; and ``others``, a sentence on other
    methods. None where none was checked.
    """
    judged, drawn_by = run.map_checks, run.heatmaps.get("method", GRADCAM)
    if not judged:
        return None
    others = [f"{title(name)} {_BADGES[one['badge']]}" for name, one in judged.items() if name != drawn_by]
    own = judged.get(drawn_by, {"checks": [], "badge": "", "reason": "", "images": 0})
    return {
        "summary": _SAID.get(own["badge"]) or f"The maps were not checked. {own['reason']}".rstrip(),
        "method": title(drawn_by),
        "images": own["images"],
        "rows": [(one["title"], one["verdict"], one["sentence"]) for one in reasons(own)],
        "others": f"Of other methods: {'; '.join(others)}." if others else "",
    }


def reasons(judged: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return ``title``, ``verdict`` and ``sentence`` of each check of a method that ``heatmaps/checks.json`` describes,
    those that fail first; [] where none was made.
    """
    checks = sorted(judged.get("checks", []), key=lambda one: _ORDER.index(one["verdict"]))
    return [
        {"title": TITLES.get(one["name"], one["name"]), "verdict": one["verdict"], "sentence": one["sentence"]}
        for one in checks
    ]


def agreement(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page of a comparison shows of ``map_checks`` in its ``comparison.json``: ``method``, ``images``,
    ``rows`` as of `shown`, ``left_out``, a sentence a model without maps, and ``reason``, why there are no rows.
    """
    checks = sorted(record["checks"], key=lambda one: _ORDER.index(one["verdict"]))
    return {
        "method": title(record["method"]),
        "images": max((one["figures"]["images"] for one in checks), default=0),
        "rows": [(TITLES[one["name"]], one["verdict"], one["sentence"]) for one in checks],
        "left_out": [f"{name} is left out. {reason}" for name, reason in record["left_out"].items()],
        "reason": record["reason"],
    }


def sentence(run: Run, method: str) -> str:
    """Return one sentence on the checks of the maps of `method` for the model of `run`."""
    one = run.map_checks.get(method)
    if one is None or not one["badge"]:
        return f"The maps of {title(method)} were not checked for this model."
    bad = [TITLES.get(c["name"], c["name"]) for c in one["checks"] if c["verdict"] == one["badge"] != "passes"]
    which = f" ({'; '.join(bad)})" if bad else ""
    return f"For this model {title(method)} {_BADGES[one['badge']]}{which}."
