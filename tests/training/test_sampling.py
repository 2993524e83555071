import numpy as np
import pytest

from chestxray.recipe import Recipe
from chestxray.training import finding_losses, input_pipeline, sampling
from chestxray.training.fit import class_shift, class_weights

RARITY = Recipe(model="m", data=("d",), sampling="rarity")


def test_factors_of_findings_are_repeat_factors():
    labels = np.zeros((100, 3), np.float32)
    labels[:40, 0], labels[30:40, 1], labels[:50, 2] = 1, 1, np.nan
    labels[60:62, 2] = 1
    found = sampling.factors(labels, RARITY)
    # Frequencies of .4, .1 and, of the 50 rows where it is known, .04.
    assert found[:30] == pytest.approx(1) and found[30:40] == pytest.approx(2)
    assert found[60:62] == pytest.approx(np.sqrt(0.4 / 0.04)) and found[70:] == pytest.approx(1)
    assert sampling.factors(labels, RARITY.replace(sampling="uniform")) is None


def test_rows_are_drawn_in_proportion_to_their_factors():
    factors = np.array([1.0] * 90 + [3.5] * 10)
    counts = np.array(
        [np.bincount(input_pipeline.order(0, e, 100, 10, factors).ravel(), minlength=100) for e in range(300)]
    )
    assert (counts.sum(axis=1) == 100).all()
    expected = 100 * factors / factors.sum()
    # Systematic: never further than the whole number below or above.
    assert (np.abs(counts - expected) < 1).all()
    assert counts.mean(axis=0) == pytest.approx(expected, abs=0.15)
    again = input_pipeline.order(0, 7, 100, 10, factors)
    assert (again == input_pipeline.order(0, 7, 100, 10, factors)).all()


def test_equal_factors_draw_each_row_once():
    drawn = input_pipeline.order(3, 1, 64, 8, np.full(64, 1.7))
    assert sorted(drawn.ravel()) == list(range(64))


def test_what_training_counts_is_undone_by_calibration():
    classes = np.eye(3, dtype=np.float32)[np.repeat([0, 1, 2], [80, 15, 5])]
    factors = sampling.factors(classes, RARITY)
    weighted, plain = RARITY.replace(class_weights=True), RARITY.replace(class_weights=False)
    drawn = factors @ classes
    weights = np.array(list(class_weights(classes, factors).values()))
    # Weights of what is drawn make all classes count alike, as those of the data do without sampling.
    assert drawn * weights == pytest.approx(np.full(3, drawn.sum() / 3))
    assert class_shift(weighted, classes) * [80, 15, 5] == pytest.approx(np.full(3, 100 / 3))
    assert class_shift(plain, classes) == pytest.approx([1, np.sqrt(80 / 15), 4])
    assert class_shift(plain.replace(sampling="uniform"), classes) is None


def test_the_shift_of_findings():
    generator = np.random.default_rng(0)
    labels = (generator.random((400, 2)) < [0.3, 0.05]).astype(np.float32)
    labels[generator.random(labels.shape) < 0.2] = np.nan
    factors = sampling.factors(labels, RARITY)
    shift = finding_losses.shift(RARITY.replace(class_weights=False), labels)
    known = np.isfinite(labels[:, 1])
    for kind in (0, 1):
        assert shift[1, kind] == pytest.approx(factors[known & (labels[:, 1] == kind)].mean())
    weights = finding_losses.positive_weights(labels, factors)
    sums = [(factors * (labels[:, 1] == kind)).sum() * weights[1, kind] for kind in (0, 1)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
