"""Whether the model has learnt anything that maps could show.

A network that was not trained, or was trained on shuffled labels, is no different from one with random weights. Its
maps may well change with the weights and with the label, and still show nothing: the other checks cannot tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chestxray.errors import DataError
from chestxray.evaluation.figure_format import with_interval
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.comparison import compare
from chestxray.evaluation.paired.finding_comparison import compare_findings
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation.map_check import MapCheck, Verdict

CHANCE = 0.5


@dataclass(frozen=True)
class Untaught:
    """The test of a model that was trained alike on shuffled labels: its ``auroc``, and the ``difference``, by the
    paired test of that name, by which the AUROC of the model with the true labels is higher.
    """

    auroc: Figure
    difference: Figure
    test: str


def untaught(predictions: Predictions | FindingPredictions, probabilities: np.ndarray) -> Untaught | None:
    """Return how well `probabilities`, float (rows, outputs), of a model trained on shuffled labels do on the test of
    `predictions`, beside these, paired by patient (`compare`, `compare_findings`); None where no AUROC can be computed.
    """
    own, other = "own", "shuffled"
    if isinstance(predictions, FindingPredictions):
        tables = {own: predictions, other: predictions.with_probabilities(probabilities)}
        try:
            found = compare_findings(tables).mean
        except DataError:  # no finding has enough patients
            return None
    else:
        table = Predictions.from_probabilities(predictions.rows, predictions.classes, probabilities)
        found = compare({own: predictions, other: table})
    of = {standing.model: standing.figure for standing in found.standings}
    (pair,) = found.pairs
    difference = pair.difference if pair.first == own else _negative(pair.difference)
    return None if of[other].value is None else Untaught(of[other], difference, pair.test)


def discrimination(auroc: Figure, beside: Untaught | None = None) -> MapCheck:
    """Return the check ``discrimination`` from the area under the ROC curve of the test, or its mean over classes or
    findings: fails where its interval is not above chance. Passes where it is and, `beside` a model trained on shuffled
    labels, the interval of the difference is above 0; otherwise doubtful, as one such model may by luck rank the images
    well: an area of ranks does not tell how little its probabilities differ.
    """
    figures: dict[str, Any] = auroc.to_json() | {"baseline": CHANCE}
    than = f"chance is {CHANCE:g}"
    above = auroc.low is not None and auroc.low > CHANCE
    verdict: Verdict = "doubtful" if auroc.low is None else "passes" if above else "fails"
    meaning = {
        "passes": "The model tells the classes apart, so that its maps have something to show.",
        "doubtful": "Whether the model tells the classes apart is not known.",
        "fails": "The model is not shown to tell the classes apart, nor therefore that its maps have anything to show.",
    }
    if beside is not None:
        shuffled, difference = beside.auroc.to_json(), beside.difference.to_json()
        figures |= {"shuffled": shuffled, "difference": difference, "test": beside.test}
        than += (
            f", and a model trained as this one was but on shuffled labels has {with_interval(shuffled, 2)}. "
            f"The difference is {with_interval(difference, 2)} ({beside.test})"
        )
        meaning["doubtful"] = "It is not shown that the labels taught the model more than luck gave the other."
        if verdict == "passes" and (beside.difference.low is None or beside.difference.low <= 0):
            verdict = "doubtful"
    sentence = f"The area under the ROC curve is {with_interval(auroc.to_json(), 2)}; {than}. {meaning[verdict]}"
    return MapCheck("discrimination", verdict, sentence, figures)


def _negative(difference: Figure) -> Figure:
    """Return the `difference` of second and first."""
    ends = (difference.value, difference.high, difference.low)
    return Figure(*(None if end is None else -end for end in ends))
