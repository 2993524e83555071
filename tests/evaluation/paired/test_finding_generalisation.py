"""The generalisation gap of findings: of each, of the mean over the same ones, with p-values that fit the intervals."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from chestxray.data.multiple_testing import holm
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.finding_generalisation import Side, finding_generalisation
from chestxray.evaluation.paired.generalisation_gap import Area, between, p_value
from drawn_findings import NAMES, example, made

OPTIONS = {"replicates": 100, "seed": 0}


def blurred(table, name, noise=3.0):
    """The table with a finding that is told much worse."""
    probabilities = table.probabilities.copy()
    column = table.findings.index(name)
    logits = np.log(probabilities[:, column] / (1 - probabilities[:, column]))
    logits += np.random.default_rng(1).normal(0, noise, len(logits))
    probabilities[:, column] = 1 / (1 + np.exp(-logits))
    return table.with_probabilities(probabilities)


@pytest.fixture(scope="module")
def sides():
    inside, outside = example(rows=400, seed=1), example(rows=400, seed=2)
    truth = outside.truth.copy()
    truth[:, NAMES.index("Effusion")] = np.nan
    truth[:, NAMES.index("Mass")][:-40] = np.nan
    outside = made(truth, blurred(outside, "Edema").probabilities, patients=np.arange(400) // 2)
    return Side.of(inside, **OPTIONS), Side.of(outside, **OPTIONS)


def auroc(side, name):
    known = side.predictions.rows[f"truth_{name}"].notna()
    rows = side.predictions.rows[known]
    return roc_auc_score(rows[f"truth_{name}"], rows[f"probability_{name}"])


def test_each_finding_and_the_mean_over_the_same_ones(sides):
    inside, outside = sides
    found = finding_generalisation(inside, outside, **OPTIONS)
    shared = ["Mass", "Edema"]
    assert list(found["findings"]) == shared
    assert found["not_compared"] == {"Effusion": "these data have no image in which it is known"}
    for name in shared:
        item = found["findings"][name]
        assert item["internal"]["value"] == pytest.approx(auroc(inside, name))
        assert item["external"]["value"] == pytest.approx(auroc(outside, name))
        assert item["gap"]["value"] == pytest.approx(auroc(inside, name) - auroc(outside, name))
        assert (item["p"] < 0.05) == (item["gap"]["low"] > 0 or item["gap"]["high"] < 0)
    mean = found["figures"]["auroc"]
    for side, key in ((inside, "internal"), (outside, "external")):
        assert mean[key]["value"] == pytest.approx(np.mean([auroc(side, name) for name in shared]))
    assert mean["internal"]["value"] != pytest.approx(inside.evaluation.test["auroc"].value), "of three findings"
    given = [found["findings"][name] for name in shared]
    assert [item["p_holm"] for item in given] == holm([item["p"] for item in given])
    assert found["findings"]["Edema"]["p_holm"] < 0.05 < found["findings"]["Mass"]["p_holm"]


def test_nothing_in_common_is_not_compared(sides):
    inside, _ = sides
    nothing = made(np.full((20, 3), np.nan), np.full((20, 3), 0.5))
    found = finding_generalisation(inside, Side.of(nothing, **OPTIONS), **OPTIONS)
    assert found["findings"] == found["figures"] == {} and set(found["not_compared"]) == set(NAMES)


@pytest.mark.parametrize("first", [(0.9, 0.85, 0.93), (0.8, 0.7, 0.87), (1.0, 0.83, 1.0)])
@pytest.mark.parametrize("second", [(0.83, 0.75, 0.9), (0.7, 0.6, 0.78), (0.95, 0.9, 0.98)])
def test_p_is_where_the_interval_ends_at_no_difference(first, second):
    figures = Figure(*first), Figure(*second)
    areas = [Area(figure, 20.0, 15.0) for figure in figures]
    p, gap = p_value(*areas), between(*figures)
    assert (p < 0.05) == (gap.low > 0 or gap.high < 0)
    assert p == pytest.approx(p_value(*reversed(areas)))
    side = -1 if gap.value > 0 else 1
    reach = np.hypot(areas[0].distance(1 - p, side), areas[1].distance(1 - p, -side))
    assert reach == pytest.approx(abs(gap.value), abs=1e-6)


def test_at_95_percent_the_distance_is_that_of_the_interval():
    area = Area(Figure(0.9, 0.8, 0.96), 20.0, 9.0)
    assert area.distance(0.95, -1) == pytest.approx(0.1) and area.distance(0.95, 1) == pytest.approx(0.06)
    assert p_value(area, Area(Figure(0.8, None, None), 1.0, 0.0)) is None
