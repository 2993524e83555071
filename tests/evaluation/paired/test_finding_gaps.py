"""Gaps between groups of people, by finding."""

import json

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from chestxray.evaluation.paired.finding_gaps import finding_gaps
from chestxray.evaluation.paired.subgroup_gaps import gaps
from drawn_findings import NAMES, example, made


def unfair(groups, worse="f", finding=1, rows=600):
    """Findings of which one is guessed in one group."""
    table = example(rows=rows, known=0.8, a_patient=1)
    p = table.probabilities.copy()
    hurt = groups == worse
    p[hurt, finding] = np.random.default_rng(1).random(hurt.sum())
    return made(table.truth, p, NAMES, np.arange(rows))


def asked_in(content):
    """Every p and its correction once: with two groups the interaction is the gap."""
    found = []
    for columns in content["findings"].values():
        for figures in columns.values():
            for entry in figures.values():
                own = list(entry["groups"].values())
                found += own if len(own) == 1 else [entry["interaction"], *own]
    return found


@pytest.mark.parametrize("names", [["f", "m"], ["f", "m", "x"]])
def test_the_worst_group_is_named_where_it_differs_and_nowhere_else(names):
    groups = np.array(names)[np.arange(600) % len(names)]
    for worse in ("f", "m"):
        content = finding_gaps(unfair(groups, worse), {"sex": groups})
        json.dumps(content, allow_nan=False)
        assert {(one["finding"], one["group"]) for one in content["worst"]} == {("Edema", worse)}
        auroc = next(one for one in content["worst"] if one["figure"] == "auroc")
        assert auroc["low"] < auroc["value"] < auroc["high"] < 0
    fair = finding_gaps(example(rows=600, a_patient=1), {"sex": groups})
    assert fair["worst"] == []


def test_each_finding_is_compared_as_one_of_two_classes_and_corrected_over_all():
    groups = np.array(["a", "b", "c"])[np.random.default_rng(0).choice(3, 600)]
    site = np.where(np.arange(600) % 2, "x", "y")
    table = unfair(groups, "a")
    content = finding_gaps(table, {"group": groups, "site": site})
    for i, name in enumerate(NAMES):
        known = ~np.isnan(table.truth[:, i])
        alone = gaps(table.of_finding(name), {"group": groups[known], "site": site[known]}, 1)["columns"]
        for column, figures in alone.items():
            for figure, entry in figures.items():
                ours = content["findings"][name][column][figure]
                for group, gap in entry["groups"].items():
                    assert {**ours["groups"][group], "p_holm": None} == {**gap, "p_holm": None}
                    assert ours["groups"][group]["p_holm"] >= gap["p_holm"]
    tested = asked_in(content)
    assert len(tested) == content["tests"] == 3 * 3 * (4 + 1)
    expected = multipletests([one["p"] for one in tested], method="holm")[1]
    assert [one["p_holm"] for one in tested] == pytest.approx(expected.tolist())


def test_unscored_findings_and_columns_without_groups_are_left_out():
    table = example(rows=300, known=1.0, a_patient=1)
    truth = table.truth.copy()
    truth[:, 0] = np.arange(300) < 3
    table = made(truth, table.probabilities, NAMES)
    content = finding_gaps(table, {"sex": np.where(np.arange(300) % 2, "f", "m"), "id": np.arange(300).astype(str)})
    assert list(content["findings"]) == ["Edema", "Effusion"]
    assert content["left_out"] == ["id"]
    assert finding_gaps(table, {"sex": np.full(300, "f")}) is None
    assert finding_gaps(table, {}) is None
