"""Figures of a run. Frames and arrays go in, a `matplotlib.figure.Figure` comes out.

The only package that imports matplotlib, and never through pyplot: no state is left
behind, and figures can be drawn in any thread and without a display. `save` writes one as PNG::

    save(confusion_matrix(np.array([[9, 1], [2, 8]]), ("NORMAL", "PNEUMONIA")), Path("confusion.png"))
"""

from chestxray.report.figures.calibration import reliability
from chestxray.report.figures.curves import precision_recall, roc
from chestxray.report.figures.decision_curve import decision_curve
from chestxray.report.figures.distribution import class_distribution
from chestxray.report.figures.forest import forest
from chestxray.report.figures.grids import Prediction, prediction_grid, sample_grid
from chestxray.report.figures.history import best_epoch, training_curves
from chestxray.report.figures.results import confusion_matrix, metrics
from chestxray.report.figures.style import save

__all__ = [
    "Prediction",
    "prediction_grid",
    "best_epoch",
    "class_distribution",
    "confusion_matrix",
    "decision_curve",
    "forest",
    "metrics",
    "precision_recall",
    "reliability",
    "roc",
    "sample_grid",
    "save",
    "training_curves",
]
