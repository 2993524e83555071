"""Figures of a run. The functions take data frames and arrays and return a `matplotlib.figure.Figure`.

Functions called ``draw_...`` draw on given axes, both for the report and for notebooks. Pyplot is never imported
here: no state is left behind, and figures can be drawn in any thread and without a display. `save` writes a figure
as PNG::

    save(confusion_matrix(np.array([[9, 1], [2, 8]]), ("NORMAL", "PNEUMONIA")), Path("confusion.png"))
"""

from chestxray.report.figures.calibration import draw_reliability, reliability
from chestxray.report.figures.curves import draw_roc, precision_recall, roc
from chestxray.report.figures.decision_curve import decision_curve
from chestxray.report.figures.distribution import class_distribution
from chestxray.report.figures.forest import forest
from chestxray.report.figures.grids import Prediction, prediction_grid, sample_grid
from chestxray.report.figures.history import MEASURES, best_epoch, divided, draw_history, training_curves, went_by
from chestxray.report.figures.results import MOST_WRITTEN, confusion_matrix, draw_confusion, draw_scale, metrics
from chestxray.report.figures.style import save

__all__ = [
    "Prediction",
    "MEASURES",
    "MOST_WRITTEN",
    "prediction_grid",
    "best_epoch",
    "divided",
    "class_distribution",
    "confusion_matrix",
    "decision_curve",
    "draw_confusion",
    "draw_history",
    "draw_reliability",
    "draw_roc",
    "draw_scale",
    "forest",
    "metrics",
    "precision_recall",
    "reliability",
    "roc",
    "sample_grid",
    "save",
    "training_curves",
    "went_by",
]
