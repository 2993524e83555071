"""Paired tests, and the comparison made of them."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from chestxray.data.index import Patients
from chestxray.data.multiple_testing import holm
from chestxray.errors import DataError, InputError
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.candidate_figures import estimated
from chestxray.evaluation.paired.comparison import align, compare
from chestxray.evaluation.paired.paired_tests import accuracy_test, auroc_test, delong
from chestxray.evaluation.predictions import Predictions
from simulated import CLASSES, predictions

# DeLong


def brute_force(positive, scores, clusters):
    """Obuchowski 1997 word for word, with the U-statistic's kernel for each pair of rows."""
    own, rest = np.flatnonzero(positive), np.flatnonzero(~positive)
    kernel = np.array(
        [[[(s[i] > s[j]) + 0.5 * (s[i] == s[j]) for j in rest] for i in own] for s in scores], dtype=float
    )
    auroc = kernel.mean(axis=(1, 2))
    above, below = kernel.mean(axis=2), kernel.mean(axis=1)
    names = np.unique(clusters)
    models, total = len(scores), np.zeros((len(scores), len(scores)))
    parts = {
        name: (
            above[:, clusters[own] == name].sum(axis=1) - (clusters[own] == name).sum() * auroc,
            below[:, clusters[rest] == name].sum(axis=1) - (clusters[rest] == name).sum() * auroc,
        )
        for name in names
    }
    m, n, i = len(own), len(rest), len(names)
    i10, i01 = len(set(clusters[own])), len(set(clusters[rest]))
    for r in range(models):
        for s in range(models):
            s10 = i10 / ((i10 - 1) * m) * sum(x[r] * x[s] for x, _ in parts.values())
            s01 = i01 / ((i01 - 1) * n) * sum(y[r] * y[s] for _, y in parts.values())
            s11 = i / (i - 1) * sum(x[r] * y[s] for x, y in parts.values())
            s11_other = i / (i - 1) * sum(x[s] * y[r] for x, y in parts.values())
            total[r, s] = s10 / m + s01 / n + (s11 + s11_other) / (m * n)
    return auroc, total


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.booleans(), st.integers(1, 4))
def test_delong_equals_brute_force(seed, ties, images):
    rng = np.random.default_rng(seed)
    positive = np.arange(24) % 3 == 0
    scores = rng.normal(size=(3, 24)) + positive
    scores = scores.round() if ties else scores
    clusters = rng.permutation(24) // images
    auroc, covariance = delong(positive, scores, clusters)
    plain_auroc, plain_covariance = brute_force(positive, scores, clusters)
    assert auroc == pytest.approx(plain_auroc)
    assert covariance == pytest.approx(plain_covariance)


def test_delong_of_independent_rows_is_the_covariance_of_placements():
    rng = np.random.default_rng(1)
    positive = np.arange(40) < 15
    scores = rng.normal(size=(2, 40)) + positive
    wins = (scores[:, positive, None] > scores[:, None, ~positive]).astype(float)
    expected = np.cov(wins.mean(axis=2)) / 15 + np.cov(wins.mean(axis=1)) / 25
    assert delong(positive, scores, np.arange(40))[1] == pytest.approx(expected)


def test_delong_is_nearly_the_bootstrap():
    one, other = predictions(1.0, 300), predictions(1.6, 300)
    comparison = compare({"one": one, "other": other}, replicates=2000)
    (pair,) = comparison.pairs
    clusters = one.clusters
    scores = np.stack([p.probabilities[:, 1] for p in (other, one)])
    _, covariance = delong(one.truth == 1, scores, clusters)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert pair.difference.high - pair.difference.low == pytest.approx(2 * 1.97 * error, rel=0.1)
    assert pair.test == "DeLong"


def test_repeating_every_image_does_not_make_delong_surer():
    rng = np.random.default_rng(2)
    positive = rng.random(60) < 0.5
    first, second = rng.normal(size=60) + positive, rng.normal(size=60) + 0.3 * positive
    once = auroc_test(positive, first, second, np.arange(60))
    thrice = auroc_test(*(np.repeat(a, 3) for a in (positive, first, second, np.arange(60))))
    naive = auroc_test(*(np.repeat(a, 3) for a in (positive, first, second)), np.arange(180))
    assert "Obuchowski" in thrice.name
    assert thrice.p == pytest.approx(once.p, rel=0.05)
    assert naive.p < once.p / 2


def test_delong_where_nothing_can_be_said():
    clusters, same = np.arange(4), np.array([0.1, 0.2, 0.3, 0.4])
    assert auroc_test(np.ones(4, dtype=bool), same, same[::-1], clusters).p is None
    assert auroc_test(np.array([False, False, True, True]), same, same, clusters).p == 1
    assert auroc_test(np.array([False, False, True, True]), same, -same, clusters).p is None


# McNemar


def discordant(wins, losses, both=10):
    first = np.array([True] * wins + [False] * losses + [True] * both)
    second = np.array([False] * wins + [True] * losses + [True] * both)
    return first, second


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    # Twice the binomial tail by hand, of what was seen itself half: 2 (1 + 8 / 2) / 2^8; 2 (1 + 10 + 45 / 2) / 2^10.
    [(7, 1, 10 / 256), (2, 8, 67 / 1024), (5, 5, 1.0), (6, 0, 1 / 64), (0, 0, 1.0)],
)
def test_mcnemar_mid_p(wins, losses, p):
    test = accuracy_test(*discordant(wins, losses), np.arange(wins + losses + 10))
    assert test.name == "McNemar mid-p"
    assert test.p == pytest.approx(p)


def test_clustered_mcnemar_by_hand():
    # Leads by patient 2, 1, 1, -1, 0: (4 / 5) 3^2 / 7 = 1.0286 on one degree of freedom.
    first = np.array([1, 1, 1, 1, 0, 1, 1], dtype=bool)
    second = np.array([0, 0, 0, 0, 1, 1, 1], dtype=bool)
    test = accuracy_test(first, second, np.array([0, 0, 1, 2, 3, 4, 4]))
    assert "Obuchowski" in test.name
    assert test.p == pytest.approx(0.3105, abs=1e-4)


def test_clustered_mcnemar_is_obuchowskis_variance():
    """The statistic as published, with the pooled proportion that later drops out."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(30), rng.integers(1, 5, 30))
    first, second = (rng.random(len(clusters)) < p for p in (0.8, 0.7))
    sizes = np.bincount(clusters)
    x1, x2 = np.bincount(clusters, weights=first), np.bincount(clusters, weights=second)
    p1, p2 = x1.sum() / sizes.sum(), x2.sum() / sizes.sum()
    pooled = (p1 + p2) / 2
    scale = 30 / 29 / sizes.sum() ** 2
    var1, var2 = scale * ((x1 - sizes * pooled) ** 2).sum(), scale * ((x2 - sizes * pooled) ** 2).sum()
    cov = scale * ((x1 - sizes * pooled) * (x2 - sizes * pooled)).sum()
    z = (p1 - p2) / np.sqrt(var1 + var2 - 2 * cov)
    assert accuracy_test(first, second, clusters).p == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_clustered_mcnemar_where_nothing_can_be_said():
    first, second = discordant(3, 0)
    assert accuracy_test(first, second, np.zeros(13, dtype=int)).p is None
    assert accuracy_test(first, first, np.zeros(13, dtype=int)).p == 1


# Many pairs


def test_holm_by_hand():
    # 5 x .01, 4 x .02, 3 x .03 and 2 x .04 (below its forerunner, so raised to it), 1 x .5.
    assert holm([0.02, 0.5, 0.01, 0.04, 0.03]) == pytest.approx([0.08, 0.5, 0.05, 0.09, 0.09])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_between_nothing_and_bonferroni(values):
    for p, corrected in zip(values, holm(values), strict=True):
        assert p <= corrected <= min(1, p * len(values)) + 1e-12


@pytest.mark.slow
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_that_of_statsmodels(values):
    from statsmodels.stats.multitest import multipletests

    np.testing.assert_allclose(holm(values), multipletests(values, method="holm")[1], atol=1e-12)


# Comparisons


def test_comparison_from_best_to_worst():
    models = {"poor": predictions(0.3), "good": predictions(2.5), "fair": predictions(2.45)}
    comparison = compare(models, replicates=300)
    assert comparison.to_frame().columns.tolist() == ["model", "value", "low", "high", "letters"]
    frame = comparison.to_frame().set_index("model")
    assert frame.index[-1] == "poor"
    assert frame["value"].is_monotonic_decreasing
    assert frame.loc["good", "letters"] == frame.loc["fair", "letters"] == "a"
    assert frame.loc["poor", "letters"] == "b"
    pairs = comparison.pairs_to_frame()
    assert len(pairs) == 3
    assert (pairs["difference"] >= 0).all()
    assert (pairs["p_holm"] >= pairs["p"]).all()
    json.dumps(comparison.to_json(), allow_nan=False)
    assert (comparison.positive, comparison.rows, comparison.patients) == ("PNEUMONIA", 150, Patients(None, 150))


def test_intervals_are_those_of_evaluation():
    models = {"one": predictions(1, patients=np.arange(150) // 2), "other": predictions(2)}
    models["other"] = predictions(2, patients=np.arange(150) // 2)
    standings = {s.model: s.figure for s in compare(models, "mcc", replicates=200, seed=3).standings}
    for model, table in models.items():
        assert standings[model] == evaluate(table, replicates=200, seed=3).test["mcc"]


def test_less_is_better_for_losses():
    models = {"poor": predictions(0.3), "good": predictions(2.5)}
    assert compare(models, "brier", replicates=200).standings[0].model == "good"


@pytest.mark.parametrize(
    ("metric", "classes", "patients", "test"),
    [
        ("auroc", CLASSES, None, "DeLong"),
        ("auroc", CLASSES, np.arange(150) // 3, "DeLong clustered by patient (Obuchowski 1997)"),
        ("auroc", ("a", "b", "c"), None, "paired bootstrap clustered by patient"),
        ("accuracy", ("a", "b", "c"), None, "McNemar mid-p"),
        ("accuracy", CLASSES, np.arange(150) // 3, "McNemar clustered by patient (Obuchowski 1998)"),
        ("f1", CLASSES, None, "paired bootstrap clustered by patient"),
    ],
)
def test_the_test_is_named(metric, classes, patients, test):
    models = {f"m{k}": predictions(k, patients=patients, classes=classes) for k in (1, 2)}
    (pair,) = compare(models, metric, replicates=200).pairs
    assert pair.test == test
    assert 0 <= pair.p <= pair.p_holm <= 1
    assert pair.difference.low < pair.difference.value < pair.difference.high


def test_a_model_is_not_different_from_itself():
    comparison = compare({"one": predictions(1), "again": predictions(1)}, "f1", replicates=100)
    (pair,) = comparison.pairs
    assert pair.difference == Figure(0.0, None, None)
    assert pair.p == 1
    assert [s.letters for s in comparison.standings] == ["a", "a"]


def test_figures_that_cannot_be_had():
    rows = predictions(1).rows
    one = Predictions(rows[rows["label"] == "NORMAL"], CLASSES)
    comparison = compare({"one": one, "other": one}, replicates=100)
    assert comparison.standings[0].figure == Figure(None, None, None)
    assert comparison.pairs[0].p is None
    json.dumps(comparison.to_json(), allow_nan=False)


@pytest.mark.parametrize("metric", ["auroc", "accuracy", "f1", "mcc", "ece"])
@pytest.mark.parametrize("images", [1, 3])
def test_an_interval_excludes_no_difference_where_p_says_so_alone(metric, images):
    tables = {f"m{k}": predictions(k / 4, 90, patients=np.arange(90) // images) for k in range(2, 9)}
    for pair in compare(tables, metric, replicates=100).pairs:
        assert (not pair.difference.low <= 0 <= pair.difference.high) == (pair.p < 0.05), pair


def test_delong_has_the_degrees_of_freedom_of_the_fewer_patients():
    rng = np.random.default_rng(4)
    clusters = np.repeat(np.arange(40), 3)
    positive, scores = clusters < 6, rng.normal(size=(2, 120)) + (clusters < 6) * np.array([[1.5], [0.6]])
    test = auroc_test(positive, *scores, clusters)
    auroc, covariance = delong(positive, scores, clusters)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert test.p == pytest.approx(2 * stats.t.sf(abs(auroc[0] - auroc[1]) / error, 5))
    assert test.figure().high - test.value == pytest.approx(stats.t.ppf(0.975, 5) * error)


def test_few_positive_patients_are_seldom_told_apart_by_luck():
    rng, now, normal = np.random.default_rng(5), 0, 0
    for _ in range(400):
        clusters = np.repeat(np.arange(60), 3)
        positive = clusters < 6
        scores = positive + rng.normal(size=(2, 60))[:, clusters] + rng.normal(size=(2, 180))
        test = auroc_test(positive, *scores, clusters)
        (a, b), covariance = delong(positive, scores, clusters)
        error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        normal += 2 * stats.norm.sf(abs(a - b) / error) < 0.05
        now += test.p < 0.05
    assert normal > 28, "nominally 20"
    assert now <= 28, "nominally 20; more than 28 have a probability of 3%"


def test_a_rare_class_takes_only_its_own_part_of_the_power():
    counts = (60, 60, 60, 6)
    truth = np.repeat(np.arange(4), counts)
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"path": [f"{i:03}" for i in range(186)], "patient": "", "split": "test", "source": "d"})
    rows["label"] = np.array(list("abcd"))[truth]
    shared = rng.normal(size=(186, 4))
    tables = {}
    for name, skill in (("one", 2.1), ("other", 1.5)):
        odds = np.exp(shared + 0.4 * rng.normal(size=(186, 4)) + skill * np.eye(4)[truth])
        tables[name] = Predictions.from_probabilities(rows, tuple("abcd"), odds / odds.sum(axis=1, keepdims=True))
    given = {name: (table,) for name, table in tables.items()}
    for metric in ("balanced_accuracy", "auroc"):
        one, other = estimated(given, "one", metric, None, np.arange(186), replicates=400, seed=0)
        (pair,) = compare(tables, metric, replicates=400).pairs
        error = (one.replicates - other.replicates).std(ddof=1)
        half = (pair.difference.high - pair.difference.low) / 2
        assert 1.96 * error < half < 2.6 * error, "five degrees of freedom would make it 2.8 times"
        assert pair.p < 0.05


# Margins


@pytest.mark.parametrize(("metric", "sign"), [("auroc", 1), ("brier", -1)])
def test_margins_by_hand(metric, sign):
    models = {"good": predictions(2.0, 400), "near": predictions(1.99, 400), "poor": predictions(0.5, 400)}
    comparison = compare(models, metric, margin=0.06, replicates=300)
    found = {(p.first, p.second): p.margin for p in comparison.pairs}
    (best, second, worst) = (s.model for s in comparison.standings)
    assert worst == "poor"
    assert found[best, second].finding == "equivalent"
    assert found[best, worst].finding == found[second, worst].finding == "first not inferior"
    for pair in comparison.pairs:
        error = (pair.difference.high - pair.difference.value) / stats.t.ppf(0.975, 10_000)
        lead = sign * pair.difference.value
        assert pair.margin.first_p == pytest.approx(stats.norm.sf((lead + 0.06) / error), abs=0.01)
        assert pair.margin.second_p == pytest.approx(stats.norm.sf((0.06 - lead) / error), abs=0.01)
        assert pair.margin.first_p_holm >= pair.margin.first_p
        # The uncorrected claim is that the 95% interval lies on the right side of the margin.
        lower = sign * (pair.difference.low if sign > 0 else pair.difference.high)
        assert (pair.margin.first_p < 0.025) == (lower > -0.06)
    assert comparison.to_json()["pairs"][0]["margin"]["finding"] == "equivalent"


def test_margins_of_accuracy_and_of_models_that_cannot_be_told():
    few = compare({"one": predictions(1, 40), "other": predictions(1.02, 40)}, "accuracy", margin=0.01, replicates=50)
    assert few.pairs[0].margin.finding == "undecided"
    rows = predictions(1).rows
    one = Predictions(rows[rows["label"] == "NORMAL"], CLASSES)
    none = compare({"one": one, "other": one}, margin=0.1, replicates=50).pairs[0].margin
    assert (none.first_p, none.finding) == (None, "undecided")
    assert compare({"one": one, "other": one}, replicates=50).pairs[0].margin is None
    with pytest.raises(InputError, match="margin must be above 0"):
        compare({"one": one, "other": one}, margin=0.0)


def test_order_of_rows_and_classes_does_not_matter():
    one, other = predictions(1), predictions(2)
    turned = Predictions(other.rows.sample(frac=1, random_state=0), CLASSES[::-1])
    plain = compare({"one": one, "other": other}, replicates=100)
    assert compare({"one": one, "other": turned}, replicates=100) == plain


def test_other_rows_labels_or_classes_are_refused():
    one = predictions(1)
    fewer = Predictions(one.rows[:-2], CLASSES)
    with pytest.raises(DataError, match=r"different images.*2 only by one, 0 only by other.*/00148.png"):
        compare({"one": one, "other": fewer})
    relabelled = one.rows.copy()
    relabelled["label"] = relabelled["label"].map({"NORMAL": "PNEUMONIA", "PNEUMONIA": "NORMAL"})
    with pytest.raises(DataError, match="different labels for 150 images"):
        compare({"one": one, "other": Predictions(relabelled, CLASSES)})
    renamed = predictions(1, classes=("NORMAL", "COVID"))
    with pytest.raises(DataError, match=r"different classes.*one: NORMAL, PNEUMONIA. other: NORMAL, COVID"):
        compare({"one": one, "other": renamed})
    twice = Predictions(pd.concat([one.rows, one.rows[:1]]), CLASSES)
    with pytest.raises(DataError, match="150 and 151 rows"):
        compare({"one": one, "other": twice})
    with pytest.raises(DataError, match="no rows"):
        compare({"one": one.of("train"), "other": one.of("train")})


def test_what_cannot_be_compared():
    with pytest.raises(InputError, match="Did you mean auroc"):
        compare({"one": predictions(1), "other": predictions(2)}, "aurox")
    with pytest.raises(InputError, match="needs two models or more"):
        compare({"one": predictions(1)})


def test_the_larger_groups_of_patients_are_used():
    grouped = predictions(2, patients=np.arange(150) // 3)
    assert compare({"one": predictions(1), "other": grouped}, replicates=100).patients == Patients(50, 0)
    assert set(align({"one": predictions(1), "other": grouped})) == {"one", "other"}


# Several trainings of a model


@pytest.mark.parametrize("metric", ["auroc", "accuracy", "ece"])
def test_one_training_in_a_list_is_one_training(metric):
    models = {"one": predictions(1), "other": predictions(2)}
    plain = compare(models, metric, replicates=200)
    assert compare({name: [table] for name, table in models.items()}, metric, replicates=200) == plain
    for standing in plain.standings:
        assert standing.figures == evaluate(models[standing.model], replicates=200).test
        assert standing.repeats == (standing.figure.value,)


def test_the_figure_of_several_trainings_is_their_mean():
    trainings = [predictions(skill) for skill in (0.8, 1.0, 1.2)]
    comparison = compare({"thrice": trainings, "once": predictions(2)}, replicates=300)
    (thrice,) = [s for s in comparison.standings if s.model == "thrice"]
    single = [evaluate(table, replicates=300).test["auroc"] for table in trainings]
    assert thrice.repeats == tuple(figure.value for figure in single)
    assert thrice.figure.value == pytest.approx(np.mean([figure.value for figure in single]))
    # Trainings that differ by .12 say less of the next one than each says of other patients.
    assert thrice.figure.high - thrice.figure.low > max(figure.high - figure.low for figure in single)
    (pair,) = comparison.pairs
    assert pair.test == "patients and seeds (Obuchowski and Rockette 1995)"
    assert comparison.design == "seeds"
    assert "other seeds" in comparison.scope
    json.dumps(comparison.to_json(), allow_nan=False)


def test_the_same_training_thrice_is_no_surer():
    one, other = predictions(1), predictions(1.4)
    plain = compare({"one": one, "other": other}, "mcc", replicates=300)
    thrice = compare({"one": [one] * 3, "other": [other] * 3}, "mcc", replicates=300)
    for before, after in zip(plain.standings, thrice.standings, strict=True):
        assert (after.figure.low, after.figure.high) == pytest.approx((before.figure.low, before.figure.high))
    assert thrice.pairs[0].p == pytest.approx(plain.pairs[0].p)


def test_trainings_on_other_images_are_refused():
    fewer = Predictions(predictions(1).rows[:-2], CLASSES)
    with pytest.raises(DataError, match=r"one \(training 1 of 2\) and one \(training 2 of 2\).*different images"):
        compare({"one": [predictions(1), fewer], "other": predictions(2)})
    with pytest.raises(InputError, match="Without any: one"):
        compare({"one": [], "other": predictions(2)})
