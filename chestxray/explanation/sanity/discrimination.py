"""Whether the model has learnt anything that maps could show.

A network that was not trained, or was trained on shuffled labels, is no different from one with random weights. Its
maps may well change with the weights and with the label, and still show nothing: the other checks cannot tell.
"""

from __future__ import annotations

from chestxray.evaluation.figure_format import with_interval
from chestxray.evaluation.intervals import Figure
from chestxray.explanation.map_check import MapCheck, Verdict

CHANCE = 0.5


def discrimination(auroc: Figure) -> MapCheck:
    """Return the check ``discrimination`` from the area under the ROC curve of the test, or its mean over classes or
    findings: passes where its interval is above chance, doubtful where it has no interval, fails otherwise.
    """
    verdict: Verdict = "doubtful" if auroc.low is None else "passes" if auroc.low > CHANCE else "fails"
    meaning = {
        "passes": "The model tells the classes apart, so that its maps have something to show.",
        "doubtful": "Whether the model tells the classes apart is not known.",
        "fails": "The model is not shown to tell the classes apart, so that its maps have nothing to show.",
    }
    sentence = f"The area under the ROC curve is {with_interval(auroc.to_json(), 2)}; chance is {CHANCE:g}. "
    return MapCheck("discrimination", verdict, sentence + meaning[verdict], auroc.to_json() | {"baseline": CHANCE})
