"""Effective number of patients behind each figure, which gives the degrees of freedom of its standard error."""

from __future__ import annotations

import numpy as np

from chestxray.evaluation.influence import auroc
from chestxray.evaluation.weighted_metrics import Key

#: Lower bound of the effective number of patients behind a variance.
FEWEST_BEHIND = 4.0


def supports(
    truth: np.ndarray,
    predicted: np.ndarray,
    clusters: np.ndarray,
    classes: int,
    positive: int | None,
) -> dict[Key, float]:
    """Return the effective number of patients of each figure (`effective`).

    For a sensitivity these are the patients with an image of the class; for F1, those with an image that is of the
    class or predicted to be; for an area, the fewer of the patients with and without the class; for a mean over
    classes, the fewest of any class that has rows; for Matthews's correlation, all patients.

    `truth` and `predicted` are class numbers, int (rows,), `clusters` codes of the patients, int (rows,).
    """
    present = [k for k in range(classes) if (truth == k).any()]
    everyone = effective(clusters)
    support: dict[Key, float] = dict.fromkeys([(None, name) for name in ("accuracy", "brier", "ece", "mcc")], everyone)
    for k in range(classes):
        own, rest = effective(clusters[truth == k]), effective(clusters[truth != k])
        claimed, either = effective(clusters[predicted == k]), effective(clusters[(predicted == k) | (truth == k)])
        sizes = {"sensitivity": own, "specificity": rest, "precision": claimed, "f1": either, "brier": everyone}
        support |= {(k, name): size for name, size in sizes.items()}
        support |= {(k, name): min(own, rest) for name in ("auroc", "auprc")}
    for name in ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc"):
        # In the mean precision, a class that is never predicted has the support of its own rows.
        parts = [support[k, name] or support[k, "sensitivity"] for k in present]
        support[None, name] = support[positive, name] if positive is not None else min(parts, default=0.0)
    fewest = min((support[k, "sensitivity"] for k in present), default=0.0)
    return support | dict.fromkeys([(None, "balanced_accuracy"), (None, "f1_macro")], fewest)


def effective(clusters: np.ndarray) -> float:
    """Return the effective number of patients behind rows with these codes (Kish 1965).

    It is the number of patients with equal numbers of rows that would give a mean the same variance.

    >>> effective(np.array([0, 1, 2])), effective(np.array([0, 0, 0, 1]))
    (3.0, 1.6)
    """
    if not len(clusters):
        return 0.0
    sizes = np.unique(clusters, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def behind(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, clusters: np.ndarray
) -> dict[Key, float]:
    """Return the effective number of patients behind the variance of each class's precision, F1 and AUROC.

    It is lower than the number of patients where a few of them have many of the images that count, or scores far
    from the others'. Arguments as of `supports`; `probabilities` is (rows, classes).
    """
    alike = np.zeros(len(truth), dtype=np.int64)
    found: dict[Key, float] = {}
    for k, scores in enumerate(probabilities.T):
        own, claimed = truth == k, predicted == k
        moved = {}
        if own.any() and not own.all():
            moved["auroc"] = auroc(own, scores, alike).rows
        if claimed.any():
            moved["precision"] = (own & claimed) - (own & claimed).sum() / claimed.sum() * claimed
        if own.any():
            either = own.astype(np.float64) + claimed
            moved["f1"] = 2 * (own & claimed) - 2 * (own & claimed).sum() / either.sum() * either
        for name, influences in moved.items():
            # The fourth moment of few patients is unreliable: the lower bound limits its effect.
            found[k, name] = max(FEWEST_BEHIND, behind_variance(influences, clusters))
    return found


def behind_variance(influences: np.ndarray, clusters: np.ndarray) -> float:
    """Return the effective number of patients behind the variance of a figure.

    A variance that comes from a few patients, because their class is rare, their images many or their scores
    extreme, is as uncertain as if there were only these. The degrees of freedom of the variance of `influences`,
    summed by patient, follow from their fourth moment (Satterthwaite 1946 by moments).

    Args:
        influences: float (rows,), what each row adds to the figure, of mean 0.
        clusters: patients as codes, int (rows,).

    >>> influences = np.tile([1.0, -1.0], 50)
    >>> behind_variance(influences, np.arange(100)) > 1000
    True
    """
    patients = np.bincount(clusters, influences)
    count, square = len(patients), float((patients**2).sum())
    if count < 2 or not square > 0:
        return 0.0
    excess = count * float((patients**4).sum()) / square**2 - 3
    freedom = 2 / max(2 / (count - 1) + excess / count, 1e-9)
    return 1 + freedom
