"""Means over images with an interval clustered by patient, and the verdict on maps from their differences to priors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chestxray.evaluation.bootstrap import resamples
from chestxray.evaluation.figure_format import with_interval
from chestxray.evaluation.intervals import LEVEL, Figure, logit_t
from chestxray.evaluation.support import FEWEST_BEHIND, behind_variance, effective
from chestxray.explanation.map_check import Verdict

REPLICATES = 2000
#: Fewest patients from whom a verdict other than doubtful is given.
FEWEST_PATIENTS = 10
#: The names of priors, as sentences have them.
RANDOM, CENTRE, OTHERS = "random maps", "a fixed blob in the middle", "the maps of other patients' images"
#: What a mean of equal scores may differ by.
_NOTHING = 1e-9


@dataclass(frozen=True)
class Scores:
    """What maps and their priors scored in a check.

    ``own`` is the score of the method's maps, float (rows,), and ``priors`` those of other maps of the same images by
    name. A higher score is a better one. ``patients`` are codes, int (rows,).
    """

    own: np.ndarray
    priors: Mapping[str, np.ndarray]
    patients: np.ndarray

    @property
    def better(self) -> str:
        """The name of the prior with the highest mean score."""
        return max(self.priors, key=lambda name: float(self.priors[name].mean()))

    def differences(self, seed: int) -> dict[str, Figure]:
        """Return by prior the mean difference of the maps' scores to the prior's of the same image."""
        return {
            name: mean(self.own - scores, self.patients, span=(-1, 1), seed=seed)
            for name, scores in self.priors.items()
        }


def lead_in_words(scores: Scores, differences: Mapping[str, Figure], least: float) -> str:
    """Return sentences on the `differences` of `scores` that the `verdict` with `least` rests on."""

    def text(name: str) -> str:
        figure = differences[name]
        # Of leads near 0 two places do not show on which side of `least` they are.
        near = figure.value is not None and abs(figure.value) < 5 * least
        return with_interval(figure.to_json(), 3 if near else 2, level="95%", signed=True)

    best, count = scores.better, len(np.unique(scores.patients))
    these = "the best of these" if len(scores.priors) > 1 else "that"
    said = [f"The lead over {these} is {text(best)}, over {len(scores.own)} images of {count} patients."]
    if count < FEWEST_PATIENTS:
        return f"{said[0]} {count} patients are too few to judge by."
    ends = {name: one.low for name, one in differences.items() if one.low is not None}
    lowest = min(ends, key=lambda name: ends[name]) if ends else best
    shown = [best]
    # The lead over the best is the least, but not always the least certain.
    if lowest != best and best in ends and ends[lowest] <= least:
        said.append(f"Over {lowest} it is {text(lowest)}.")
        shown.append(lowest)
    if any(end is not None and 0 < end <= least for name in shown for end in (differences[name].value, ends.get(name))):
        said.append(f"A lead of less than {least:g} counts as none.")
    if best == OTHERS and (differences[best].value or 0.0) <= least:
        said.append("Those know the model, and no lead over them alone fails no method.")
    return " ".join(said)


def mean(values: np.ndarray, patients: np.ndarray, *, span: tuple[float, float] = (0, 1), seed: int = 0) -> Figure:
    """Return the mean of `values`, float (rows,) within `span`, with its 95% interval over other patients.

    The bootstrap draws patients with all their images; `patients` are codes, int (rows,). All parts are None without
    rows. The degrees of freedom are those of the patients behind the variance: a few images often decide a mean of
    differences between maps.
    """
    if not len(values):
        return Figure(None, None, None)
    values, codes = np.asarray(values, np.float64), np.unique(patients, return_inverse=True)[1]
    blocks = [weights @ values / weights.sum(axis=1) for weights in resamples(codes, REPLICATES, seed)]
    middle = float(values.mean())
    support = effective(codes)
    if (varying := behind_variance(values - middle, codes)) > 0:
        support = min(support, max(FEWEST_BEHIND, varying))
    found = logit_t(middle, np.concatenate(blocks), support, span)
    if found.low is None and len(np.unique(codes)) > 1:
        return _of_equal_values(middle, effective(codes), span)
    return found


def _of_equal_values(value: float, support: float, span: tuple[float, float]) -> Figure:
    """Return the interval of a mean of rows that all have the same value, of which a bootstrap sees no variation.

    As many patients as none of `support` may be, by Clopper and Pearson (1934), could be at an end of the span.
    """
    share = 1 - ((1 - LEVEL) / 2) ** (1 / support)
    return Figure(value, value - share * (value - span[0]), value + share * (span[1] - value))


def verdict(scores: Scores, differences: Mapping[str, Figure], least: float = 0.0) -> Verdict:
    """Return the verdict on maps that should do better than every prior, by more than `least`.

    ``passes``: better than each prior, with an interval above `least`. No correction for the number of priors is
    needed, as all of them have to be beaten (Berger 1982). ``fails``: on average no better than a prior that knows
    nothing of the image: it is the map that has to show that it does. ``doubtful``: better on average, but an interval
    includes `least`; or there are fewer than `FEWEST_PATIENTS` patients.

    `OTHERS` know the model, and where the cue lies at one place on every film their mean is as right as the image's
    own map, and smoother. Being no better than they are is therefore doubtful, and never fails.
    """
    if len(np.unique(scores.patients)) < FEWEST_PATIENTS:
        return "doubtful"
    least += _NOTHING
    if any(one.value is None or one.value <= least for name, one in differences.items() if name != OTHERS):
        return "fails"
    return "passes" if all(one.low is not None and one.low > least for one in differences.values()) else "doubtful"
