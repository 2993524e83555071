"""The mean AUROC of an epoch's images as a Keras metric, so that patience and the best epoch can go by it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

#: Bins of the logits from -`REACH` to `REACH`: images within one bin count as tied.
BINS, REACH = 4096, 16.0


@keras.saving.register_keras_serializable("chestxray")
class MeanAuroc(keras.metrics.Metric):
    """The mean over classes or findings of the AUROC of each against the rest, of those that have both kinds.

    Targets are (batch, classes), one-hot, or of findings from 0 to 1 (0.5 and above: present) and NaN where one is not
    known; predictions are probabilities. Rows are counted by finding and kind in `BINS` bins of the logit, so that the
    memory does not grow with the rows; the AUROC of the counts differs from the exact one by at most half the share of
    pairs within a bin. The result is 0 where nothing has both kinds.
    """

    def __init__(self, outputs: int, name: str = "auroc") -> None:
        super().__init__(name=name)
        self.outputs = outputs
        self.counts = self.add_variable((outputs * 2 * BINS,), initializer="zeros", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch."""
        small = keras.config.epsilon()
        p = ops.clip(ops.cast(y_pred, "float32"), small, 1 - small)
        place = (ops.log(p) - ops.log(1 - p) + REACH) * (BINS / (2 * REACH))
        bins = ops.cast(ops.clip(ops.floor(place), 0, BINS - 1), "int32")
        known = ops.logical_not(ops.isnan(y_true))
        present = ops.cast(ops.logical_and(known, y_true >= 0.5), "int32")
        column = ops.arange(self.outputs, dtype="int32")[None, :]
        segments = (column * 2 + present) * BINS + bins
        found = ops.segment_sum(
            ops.reshape(ops.cast(known, self.counts.dtype), (-1,)),
            ops.reshape(segments, (-1,)),
            num_segments=self.outputs * 2 * BINS,
        )
        self.counts.assign_add(found)

    def result(self) -> Any:
        """Return the mean so far."""
        counts = ops.reshape(self.counts, (self.outputs, 2, BINS))
        absent, present = counts[:, 0], counts[:, 1]
        # Pairs of an absent row in a lower bin than a present one, and half of those in the same bin.
        below = ops.cumsum(absent, axis=1) - absent
        won = ops.sum(present * (below + absent / 2), axis=1)
        pairs = ops.sum(absent, axis=1) * ops.sum(present, axis=1)
        scored = ops.cast(pairs > 0, won.dtype)
        return ops.sum(won / ops.maximum(pairs, 1.0)) / ops.maximum(ops.sum(scored), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        return {"outputs": self.outputs, "name": self.name}
