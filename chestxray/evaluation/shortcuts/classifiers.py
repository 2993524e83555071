"""Small classifiers for the shortcut controls: fitted in about a second."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Most principal components of `pictures`.
COMPONENTS = 64
#: Number of cells that `trees` uses: those that differ most between the classes in training (ANOVA F).
CELLS = 32
#: Strengths of the logistic regression's penalty (its C, smaller is stronger); validation chooses.
PENALTIES = (0.001, 0.01, 0.1, 1.0)

#: Fits `Examples` with a seed; returns a function from features to probabilities of the classes seen in training,
#: and their codes.
Fitter = Callable[["Examples", int], tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]]


@dataclass(frozen=True)
class Examples:
    """Rows to fit a control on.

    ``train`` and ``validation``: features, float (rows, features); ``truth`` and ``validation_truth``: class codes,
    int (rows,). Validation may have no rows.
    """

    train: np.ndarray
    truth: np.ndarray
    validation: np.ndarray
    validation_truth: np.ndarray


def probabilities(fit: Fitter, examples: Examples, test: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Fit on `examples` and return probabilities for `test`, float (rows, features): float64 (rows, classes).

    A class without training rows gets probability 0; without any training rows all classes get the same.
    """
    given = np.zeros((len(test), classes))
    present = np.unique(examples.truth)
    if not len(present):
        return given + 1 / classes
    if len(present) == 1:
        given[:, present] = 1.0
        return given
    predict, codes = fit(examples, seed)
    given[:, codes] = predict(test)
    return given / given.sum(axis=1, keepdims=True)


def pictures(examples: Examples, seed: int) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """Fit a logistic regression on at most `COMPONENTS` whitened principal components, classes balanced."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, features = examples.train.shape
    count = min(COMPONENTS, features, rows - 1)
    reduce = make_pipeline(StandardScaler(), PCA(count, whiten=True, random_state=seed))
    reduced = Examples(
        reduce.fit_transform(examples.train),
        examples.truth,
        reduce.transform(examples.validation) if len(examples.validation) else np.empty((0, count)),
        examples.validation_truth,
    )
    predict, codes = linear(reduced, seed)
    return lambda images: predict(reduce.transform(images)), codes


def pictures_and_trees(examples: Examples, seed: int) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """Fit `pictures`, which detects diffuse patterns, and `trees`, which detects one bright letter; average both."""
    (spread, codes), (local, _) = pictures(examples, seed), trees(examples, seed)
    return lambda images: (spread(images) + local(images)) / 2, codes


def linear(examples: Examples, seed: int) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """Fit a logistic regression, classes balanced, with the penalty of the least loss on validation."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    best, least = None, np.inf
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=300, random_state=seed)
        with warnings.catch_warnings():
            # Full convergence is not needed for a control.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(examples.train, examples.truth)
        loss = _loss(model.predict_proba, model.classes_, examples)
        if best is None or loss < least:
            best, least = model, loss
    assert best is not None
    return best.predict_proba, best.classes_


def _loss(predict: Callable[[np.ndarray], np.ndarray], codes: np.ndarray, examples: Examples) -> float:
    """Return the mean log loss on validation, classes weighted equally; infinite without validation rows."""
    known = np.isin(examples.validation_truth, codes)
    if not known.any():
        return np.inf
    truth = np.searchsorted(codes, examples.validation_truth[known])
    given = predict(examples.validation[known])[np.arange(len(truth)), truth]
    losses = -np.log(np.maximum(given, 1e-12))
    return float(np.mean([losses[truth == k].mean() for k in np.unique(truth)]))


def trees(examples: Examples, seed: int) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """Fit a few small boosted trees, classes balanced, which can split a feature at any value."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_selection import f_classif

    # A letter is one bright cell: trees on all cells take ten times as long and detect no more.
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # A cell that is constant over images has no F value, and is not chosen.
        warnings.simplefilter("ignore", UserWarning)
        scores = np.nan_to_num(f_classif(examples.train, examples.truth)[0])
    chosen = np.sort(np.argsort(-scores, kind="stable")[:CELLS])
    model = HistGradientBoostingClassifier(
        max_iter=40,
        max_leaf_nodes=8,
        min_samples_leaf=min(20, max(2, len(examples.train) // 10)),
        early_stopping=False,
        random_state=seed,
    )
    model.fit(examples.train[:, chosen], examples.truth)
    # Classes are balanced afterwards: with weights of rows the binning takes a hundred times as long.
    weights = 1 / np.bincount(np.searchsorted(model.classes_, examples.truth))

    def balanced(features: np.ndarray) -> np.ndarray:
        given = model.predict_proba(features[:, chosen]) * weights
        return given / given.sum(axis=1, keepdims=True)

    return balanced, model.classes_
