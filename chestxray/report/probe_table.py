"""What a report says of a linear probe: the strengths of its penalty, and the one that was kept."""

from __future__ import annotations

from typing import Any

from chestxray.evaluation.figure_format import number
from chestxray.report.figures import best_epoch, divided, went_by
from chestxray.runs.run_folder import Run


def of(run: Run) -> dict[str, Any] | None:
    """Return ``rows`` (C, the figures of training and validation, whether it was kept), ``C`` of the one kept, what it
    was best in (``best_in``), ``value`` of that, and whether epochs ``followed``; None without a probe.
    """
    if run.history.empty:
        return None
    probe, epochs = divided(run.history)
    best = best_epoch(probe)
    if best is None:
        return None
    column, best_in = went_by(probe)
    rows = [row | {"kept": place == best} for place, row in enumerate(probe.to_dict("records"))]
    kept = rows[best]
    found = {"rows": rows, "C": kept["C"], "best_in": best_in, "value": number(float(kept[column]))}
    return found | {"followed": not epochs.empty, "auroc": column == "val_auroc"}


def sentence(probe: dict[str, Any]) -> str:
    """Return how the head was fitted and which strength was kept."""
    tried = [row["C"] for row in probe["rows"]]
    return (
        "The head is a logistic regression on features of the frozen backbone (linear probe; scikit-learn, L-BFGS). "
        f"Of {len(tried)} strengths of its L2 penalty, C from {min(tried):g} to {max(tried):g}, C = {probe['C']:g} was "
        f"kept, which had {probe['best_in']} ({probe['value']})."
    )
