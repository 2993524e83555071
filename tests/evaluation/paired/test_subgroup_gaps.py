"""Gaps between groups of people."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.oneway import anova_oneway

from chestxray.evaluation import influence
from chestxray.evaluation.influence import Influence
from chestxray.evaluation.paired.subgroup_gaps import Part, gap, gaps, interaction
from chestxray.evaluation.predictions import Predictions
from chestxray.storage.result_forms import Gaps
from chestxray.storage.schema import conform
from simulated import CLASSES, predictions


def share(right, of, clusters):
    found = influence.accuracy(right[of])
    rows = np.zeros(len(of))
    rows[of] = found.rows
    return Part(Influence(found.value, rows), float(of.sum()), clusters)


def groups_of(skill=1.5, rows=200, seed=0):
    table = predictions(skill, rows=rows, seed=seed, patients=np.arange(rows) // 2)
    rng = np.random.default_rng(seed)
    return table, np.array(["a", "b", "c"])[rng.choice(3, rows // 2, p=[0.5, 0.3, 0.2])][np.arange(rows) // 2]


def test_a_gap_of_shares_by_hand():
    """Zou and Donner's limits from the two intervals, which share no patient."""
    right, of = np.arange(100) % 5 > 0, np.arange(100) < 40
    one, other = share(right, of, np.arange(100)), share(right | (np.arange(100) > 90), ~of, np.arange(100))
    figure, p = gap(one, other)
    first, second = one.figure(), other.figure()
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    assert (figure.low, figure.high) == pytest.approx((figure.value - below, figure.value + above))
    table = [[one.value * 40, 40 - one.value * 40], [other.value * 60, 60 - other.value * 60]]
    assert p == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue, abs=0.02)


def test_interval_and_p_agree():
    for seed in range(30):
        table, groups = groups_of(seed=seed, rows=120)
        found = gaps(table, {"group": groups}, 1)["columns"]["group"]
        for item in found.values():
            for one in item["groups"].values():
                if one["p"] is not None:
                    assert (not one["low"] <= 0 <= one["high"]) == (one["p"] < 0.05)


def test_a_group_without_error_is_not_sure():
    right = np.arange(60) >= 6
    of = np.arange(60) >= 50
    figure, p = gap(share(right, of, np.arange(60)), share(right, ~of, np.arange(60)))
    assert figure.value == pytest.approx(0.12)
    assert figure.low < 0 < figure.high
    assert p > 0.05


def test_patients_in_both_groups_make_a_gap_surer():
    rng = np.random.default_rng(0)
    patient = rng.normal(size=200)
    clusters, of = np.repeat(np.arange(200), 2), np.arange(400) % 2 == 0
    right = np.repeat(patient, 2) + 0.3 * rng.normal(size=400) > -0.5
    paired, _ = gap(share(right, of, clusters), share(right, ~of, clusters))
    apart, _ = gap(share(right, of, np.arange(400)), share(right, ~of, np.arange(400)))
    assert paired.high - paired.low < 0.7 * (apart.high - apart.low)


@pytest.mark.parametrize("levels", [(0.8, 0.85, 0.7), (0.6, 0.75), (0.8, 0.8, 0.8, 0.8)])
def test_interaction_is_nearly_welchs_analysis_of_variance(levels):
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(len(levels)), 300)
    right = rng.random(len(group)) < np.array(levels)[group]
    parts = [share(right, group == k, np.arange(len(group))) for k in range(len(levels))]
    samples = [right[group == k].astype(float) for k in range(len(levels))]
    assert interaction(parts) == pytest.approx(anova_oneway(samples, use_var="unequal").pvalue, abs=0.02)


def test_interaction_of_two_is_nearly_the_gap():
    table, groups = groups_of(rows=400)
    found = gaps(table, {"sex": np.where(groups == "a", "F", "M")}, 1)["columns"]["sex"]["auroc"]
    assert found["against"] == "M"
    assert list(found["groups"]) == ["F"]
    assert found["interaction"]["p"] == found["groups"]["F"]["p"]


def test_all_tests_are_corrected_together():
    table, groups = groups_of()
    found = gaps(table, {"group": groups, "none": np.full(len(groups), "x"), "half": groups == "a"}, 1)
    assert list(found["columns"]) == ["group", "half"]
    assert found["tests"] == 3 * (1 + 3) + 3
    known = [
        one
        for figures in found["columns"].values()
        for item in figures.values()
        for one in (item["interaction"], *item["groups"].values())
    ]
    assert all(one["p"] <= one["p_holm"] <= 1 for one in known)
    assert min(one["p_holm"] for one in known) == pytest.approx(min(1, found["tests"] * min(one["p"] for one in known)))
    assert conform(found, Gaps) == found
    assert gaps(table, {"none": np.full(len(groups), "")}, 1) is None


def test_a_worse_group_is_found_and_an_unknown_one_left_out():
    table, groups = groups_of(2.5, rows=600)
    rows = table.rows.copy()
    poor = groups == "c"
    rng = np.random.default_rng(1)
    rows.loc[poor, "probability_PNEUMONIA"] = rng.random(poor.sum())
    rows["probability_NORMAL"] = 1 - rows["probability_PNEUMONIA"]
    rows["predicted"] = np.where(rows["probability_PNEUMONIA"] > 0.5, *CLASSES[::-1])
    found = gaps(Predictions(rows, CLASSES), {"group": np.where(groups == "b", "", groups)}, 1)["columns"]["group"]
    one = found["auroc"]["groups"]["a"]
    assert found["auroc"]["against"] == "c"
    assert one["low"] > 0.2
    assert one["p_holm"] < 0.001


def test_more_classes_and_groups_without_a_class():
    classes = ("x", "y", "z")
    table = predictions(1.5, rows=300, classes=classes)
    group = np.where((table.truth == 2) | (np.arange(300) % 2 == 0), "a", "b")
    found = gaps(table, {"group": group}, None)["columns"]["group"]
    assert set(found) == {"auroc", "accuracy"}
    assert found["auroc"]["groups"]["a"]["value"] is None, "a mean over other classes is another figure"
    assert found["accuracy"]["groups"]["a"]["p"] is not None
    mixed = gaps(table, {"group": np.array(["a", "b"])[np.arange(300) % 2]}, None)["columns"]["group"]
    assert mixed["auroc"]["groups"]["a"]["p"] is not None


def test_groups_that_do_not_differ_are_seldom_told_apart():
    simulations, told = 200, np.zeros(2)
    for seed in range(simulations):
        rng = np.random.default_rng(seed)
        clusters = np.arange(240) // 2
        group = rng.integers(0, 4, 120)[clusters]
        right = rng.normal(size=120)[clusters] + rng.normal(size=240) > -1
        parts = [share(right, group == k, clusters) for k in range(4)]
        parts = [Part(part.influence, part.support / 2, clusters) for part in parts]
        rest = share(right, group != 0, clusters)
        told += [interaction(parts) < 0.05, gap(parts[0], Part(rest.influence, rest.support / 2, clusters))[1] < 0.05]
    assert (told <= 20).all(), "nominally 10; more than 20 have a probability of 0.1%"


def test_a_column_of_names_is_left_out_and_said():
    table, _ = groups_of()
    names = np.array([f"n{i}" for i in range(200)])
    found = gaps(table, {"name": names, "half": np.where(np.arange(200) % 2, "x", "y")}, 1)
    assert (list(found["columns"]), found["left_out"]) == (["half"], ["name"])


def test_perfect_areas_of_several_classes_are_not_sure():
    table = predictions(1, rows=90, classes=("x", "y", "z"))
    sure = table.rows.assign(predicted=table.rows["label"])
    for label in table.classes:
        sure[f"probability_{label}"] = (sure["label"] == label).astype(float)
    group = np.where(np.arange(90) < 30, "a", "b")
    item = gaps(Predictions(sure, table.classes), {"group": group}, None)["columns"]["group"]["auroc"]["groups"]["a"]
    assert item["p"] == 1
    assert -0.6 < item["low"] < 0 < item["high"] < 0.6


def test_one_class_alone_has_no_gap():
    table = predictions(1)
    rows = pd.DataFrame(table.rows[table.rows["label"] == CLASSES[0]])
    group = np.array(["a", "b"])[np.arange(len(rows)) % 2]
    found = gaps(Predictions(rows, CLASSES), {"group": group}, 1)["columns"]["group"]
    assert found["auroc"]["groups"]["a"] == {"value": None, "low": None, "high": None, "p": None, "p_holm": None}
    assert found["specificity"]["groups"]["a"]["p"] is not None
