"""Check that mixed precision works."""

from __future__ import annotations

import numpy as np

from chestxray.models.assembly import CALIBRATION
from chestxray.testing.model_under_test import Subject, outputs
from chestxray.testing.results import CheckFailed


def check_float16(subject: Subject) -> None:
    """Under mixed_float16 the logits are float32 and the probabilities are finite."""
    model = subject.build(mixed_precision=True).model
    logits = model.get_layer(CALIBRATION).input
    if logits.dtype != "float32":
        raise CheckFailed(
            f"under mixed precision the head must compute in float32. Received: {logits.dtype}",
            "give the layer of the logits dtype='float32'",
        )
    if not np.isfinite(outputs(model, subject.images)).all():
        raise CheckFailed(
            "under mixed_float16 the probabilities are not finite",
            "float16 ends at 65504: scale pixels to small numbers, give what cannot be small dtype='float32'",
        )
