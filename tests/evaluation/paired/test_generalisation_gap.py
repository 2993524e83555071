"""How much less a figure is at a second hospital."""

import pytest

from chestxray.errors import DataError, InputError
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired.generalisation_gap import difference
from chestxray.evaluation.predictions import Predictions
from simulated import predictions


def test_drop_on_external_rows():
    internal, external = (evaluate(predictions(k, seed=s), replicates=300) for k, s in ((2.5, 0), (0.8, 1)))
    gap = difference(internal, external)
    here, there = internal.test["auroc"], external.test["auroc"]
    assert gap.value == pytest.approx(here.value - there.value)
    assert 0 < gap.low < gap.value < gap.high
    assert gap.high - gap.low > max(f.high - f.low for f in (here, there))
    back = difference(external, internal)
    assert (back.value, back.low, back.high) == pytest.approx((-gap.value, -gap.high, -gap.low))


def test_drop_that_cannot_be_had():
    internal = evaluate(predictions(2, classes=("a", "b", "c")), replicates=100)
    table = predictions(2, seed=1, classes=("a", "b", "c"))
    fewer = evaluate(Predictions(table.rows[table.rows["label"] != "c"], table.classes), replicates=100)
    assert difference(internal, fewer, "auroc") == Figure(None, None, None)
    assert difference(internal, fewer, "accuracy").value is not None
    with pytest.raises(DataError, match="cannot be compared"):
        difference(internal, evaluate(predictions(1), replicates=100))
    with pytest.raises(InputError, match="Unknown metric"):
        difference(internal, internal, "auc")
