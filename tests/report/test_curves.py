"""What the curves of a report draw."""

import numpy as np
import pytest

from chestxray.report import figures


def by_threshold(hit, score):
    """True and false positives at each distinct score, the strictest threshold first."""
    called = [score >= threshold for threshold in np.unique(score)[::-1]]
    return np.array([(c & hit).sum() for c in called]), np.array([(c & ~hit).sum() for c in called])


def curve(figure):
    """The line of class b."""
    (found,) = [line for line in figure.axes[0].lines if line.get_label().startswith("b:")]
    return found


@pytest.fixture
def drawn():
    """Scores with ties, in a table of two classes."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 60)
    score = np.round(np.clip(0.3 * truth + generator.uniform(0, 0.7, 60), 0, 1), 1)
    return truth, np.stack([1 - score, score], axis=1)


def test_the_roc_curve_has_a_point_at_each_threshold(drawn):
    truth, probabilities = drawn
    line = curve(figures.roc(truth, probabilities, ["a", "b"], {}, "b"))
    true, false = by_threshold(truth == 1, probabilities[:, 1])
    np.testing.assert_allclose(line.get_xdata(), [0, *false / (truth == 0).sum()])
    np.testing.assert_allclose(line.get_ydata(), [0, *true / (truth == 1).sum()])


def test_the_precision_recall_curve_begins_with_the_precision_of_the_strictest_threshold(drawn):
    truth, probabilities = drawn
    line = curve(figures.precision_recall(truth, probabilities, ["a", "b"], {}, "b"))
    true, false = by_threshold(truth == 1, probabilities[:, 1])
    precision = true / (true + false)
    np.testing.assert_allclose(line.get_xdata(), [0, *true / (truth == 1).sum()])
    np.testing.assert_allclose(line.get_ydata(), [precision[0], *precision])
