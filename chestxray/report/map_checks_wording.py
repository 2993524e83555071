"""What pages say of the checks of heat maps."""

from __future__ import annotations

from typing import Any

from chestxray.report.heatmap_wording import TITLES as TITLES_OF_METHODS
from chestxray.runs.run_folder import Run

#: A check by its name, as a heading.
TITLES = {
    "discrimination": "The model has learnt something",
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
    "reproducibility": "Same map of another architecture",
}
_SAID = {
    "passes": "The maps pass every check that was made. That does not make a map right for one film.",
    "doubtful": "The maps are doubtful: at least one check could not be passed or failed with these images.",
    "fails": "The maps fail: at least one check shows that they do not mean what they seem to.",
}


#: The worst first, as they are shown.
_ORDER = ("fails", "doubtful", "passes")


def shown(run: Run) -> dict[str, Any] | None:
    """Return what the report shows of ``heatmaps/checks.json``: ``summary``, ``method``, ``images``, and ``rows`` of
    title, verdict and sentence, those that fail first. None where the maps were not checked.
    """
    judged = run.map_checks
    if not judged:
        return None
    checks = sorted(judged["checks"], key=lambda one: _ORDER.index(one["verdict"]))
    return {
        "summary": _SAID.get(judged["badge"]) or f"The maps were not checked. {judged['reason']}",
        "method": TITLES_OF_METHODS.get(judged["method"], judged["method"]),
        "images": judged["images"],
        "rows": [(TITLES.get(one["name"], one["name"]), one["verdict"], one["sentence"]) for one in checks],
    }
