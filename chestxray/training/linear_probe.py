"""A linear probe: the head as a logistic regression, fitted to convergence on features of the frozen backbone.

The features of each image are computed once, and again in each augmented view that is asked for (``cached_views``).
They are standardised, and scikit-learn's `LogisticRegression` (L-BFGS, cross-entropy with an L2 penalty) is fitted for
each of `STRENGTHS`: multinomial for classes; for findings one regression each, over the images in which it is known,
all with the same strength. What is best on validation, by ``monitor``, becomes kernel and bias of the head's dense
layer, with the standardisation in them.
"""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import pandas as pd

from chestxray.errors import InputError
from chestxray.models import hosts, interrupts
from chestxray.models.assembly import CALIBRATION, Built
from chestxray.recipe import Recipe
from chestxray.training import cached_features, finding_losses, sampling
from chestxray.training.auroc_metric import MeanAuroc
from chestxray.training.feature_cache import Store, View

if TYPE_CHECKING:
    from chestxray.training.fit import Aim, Rows

log = logging.getLogger(__name__)

#: Inverse strengths of the penalty, scikit-learn's C: two a decade, the strongest penalty first.
STRENGTHS = tuple(float(f"{10 ** (step / 2):.3g}") for step in range(-12, 1))
#: L-BFGS ends where no component of the gradient of the mean loss is larger, or after so many iterations.
TOLERANCE, ITERATIONS = 1e-6, 10_000
#: Logits computed at once are of so many images.
BLOCK = 65_536


@dataclass(frozen=True)
class Linear:
    """Logits of `kernel` float64 (features, outputs) and `bias` float64 (outputs,), of features as they are."""

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return float64 (rows, outputs) of `features` (rows, features)."""
        starts = range(0, len(features), BLOCK)
        return np.concatenate([features[s : s + BLOCK].astype(np.float64) @ self.kernel + self.bias for s in starts])


def dense_of(built: Built, name: str) -> keras.layers.Dense:
    """Return the dense layer that is all of a head that is trained; before it a head may pool, flatten and drop out.

    Another head is not replaced by this one: the model would no longer be the architecture `name`.

    Raises:
        InputError: a head that has other weights, or a dense layer without a bias or with an activation.
    """
    dense = built.model.get_layer(CALIBRATION).input._keras_history.operation
    after = [layer for layer in built.model.layers if layer.name not in built.backbone]
    others = [layer for layer in after if layer.trainable_variables and layer is not dense]
    linear = isinstance(dense, keras.layers.Dense) and dense.use_bias and dense.activation is keras.activations.linear
    if others or not linear or len(dense.input.shape) != 2:
        found = ", ".join(layer.name for layer in [*others, dense])
        raise InputError(
            f"probe fits a head that is one dense layer; the head of {name} is not. Allowed: --no-probe, which trains "
            f"it, or another architecture. Received: {found}."
        )
    return dense


def features_front(dense: keras.layers.Dense, model: keras.Model) -> keras.Model:
    """Return the part of `model` from pixels to the features of `dense`; dropout before it is left out, which does
    nothing to an image that is not trained on. So the cache shares them with the head phase of other runs.
    """
    tensor = dense.input
    while isinstance(tensor._keras_history.operation, keras.layers.Dropout):
        tensor = tensor._keras_history.operation.input
    return keras.Model(model.input, tensor)


class Regressions:
    """The logistic regressions of one probe: `at` fits them for a C, from where the C before left them.

    `features` float (rows, features) and `labels` float32 (rows, outputs), one-hot, or of findings from 0 to 1 and NaN
    where one is not known. `weights` float64 (rows, outputs, 2) are those of each row for an output that is absent and
    present in it; of classes only those of the class that is present are looked at.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, weights: np.ndarray, *, findings: bool) -> None:
        from sklearn.preprocessing import StandardScaler

        self.scaler = StandardScaler()
        # float64: float32 ends short of the minimum.
        scaled = self.scaler.fit_transform(features.astype(np.float64))
        self.outputs = labels.shape[1]
        self.ones: list[_Regression | float]
        if not findings:
            self.ones = [_Regression(scaled, labels.argmax(axis=1), weights[..., 1][labels == 1])]
        else:
            self.ones = [_of_finding(scaled, labels[:, f], weights[:, f]) for f in range(self.outputs)]

    def at(self, strength: float) -> Linear:
        """Return the regression for C `strength`, of features that are not standardised."""
        fitted = [one.at(strength) if isinstance(one, _Regression) else (None, one) for one in self.ones]
        size = len(self.scaler.scale_)
        kernels = [np.zeros((size, 1)) if kernel is None else kernel for kernel, _ in fitted]
        kernel, bias = np.concatenate(kernels, axis=1), np.concatenate([np.atleast_1d(bias) for _, bias in fitted])
        if kernel.shape[1] == 1 and self.outputs == 2 and len(self.ones) == 1:
            # Of two classes there is one logit, their difference.
            kernel, bias = kernel * [-0.5, 0.5], bias * [-0.5, 0.5]
        kernel = kernel / self.scaler.scale_[:, None]
        return Linear(kernel, bias - self.scaler.mean_ @ kernel)


class _Regression:
    def __init__(self, features: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression

        self.given = features, codes, weights
        self.model = LogisticRegression(tol=TOLERANCE, max_iter=ITERATIONS, warm_start=True)

    def at(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return kernel (features, logits) and bias (logits,)."""
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits

        # The products are small: several threads of BLAS mostly wait for each other, on a busy machine for seconds,
        # and one adds up in the same order on every machine.
        with threadpool_limits(limits=1, user_api="blas"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            self.model.set_params(C=strength).fit(*self.given)
        if caught:
            log.warning("The probe's regression for C %g has not converged in %d iterations.", strength, ITERATIONS)
        return self.model.coef_.T, self.model.intercept_


def _of_finding(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> _Regression | float:
    """Return the regression of one finding over the rows in which it is known.

    A target between 0 and 1 is a row of either kind, with a share of its weight each. Where all known rows are alike
    there is nothing to regress on: returned is the logit of their prevalence, half a row of either kind added.
    """
    parts = []
    for kind in (0, 1):
        share = targets if kind else 1 - targets
        rows = np.flatnonzero(np.isfinite(targets) & (share > 0))
        parts.append((rows, share[rows] * weights[rows, kind]))
    (absent, of_absent), (present, of_present) = parts
    if not len(absent) or not len(present):
        return float(np.log((len(present) + 0.5) / (len(absent) + 0.5)))
    codes = np.repeat([0, 1], [len(absent), len(present)])
    return _Regression(features[np.concatenate([absent, present])], codes, np.concatenate([of_absent, of_present]))


def fit(
    built: Built,
    pixels: np.ndarray,
    training: Rows,
    validation: Rows,
    recipe: Recipe,
    aim: Aim,
    cache: Path,
) -> pd.DataFrame:
    """Set the head of `built`, whose backbone is frozen, to the best regression by validation.

    `pixels`, uint8 (n, height, width), are all images. Returns a row for each C in the order in which they were fitted:
    ``C``, ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``, where the recipe goes by it ``auroc`` and
    ``val_auroc``, and ``seconds``. All are fitted, whatever ``patience`` is: under a strong penalty the AUROC stays as
    it is for several.

    Raises:
        InputError: a head of more than one dense layer; a class without training images; features that the cache
            cannot hold.
        NonFiniteError: a feature is NaN or infinite.
    """
    findings = isinstance(aim.loss(), finding_losses.FindingLoss)
    dense = dense_of(built, recipe.model)
    if not findings and not training.labels.any(axis=0).all():
        raise InputError("probe needs training images of every class, and there are none of one class.")
    views, held_out = _features(
        features_front(dense, built.model), pixels, training.places, validation.places, recipe, cache
    )
    weights = np.concatenate([row_weights(training.labels, recipe, aim, findings=findings) / len(views)] * len(views))
    labels = np.concatenate([training.labels] * len(views))
    regressions = Regressions(np.concatenate(views), labels, weights, findings=findings)
    rows: list[dict[str, float]] = []
    best: Linear | None = None
    most, chosen = -np.inf, STRENGTHS[0]
    with interrupts.deferred() as check:
        for strength in STRENGTHS:
            check()
            started = time.perf_counter()
            linear = regressions.at(strength)
            # Of the images as they are, and without weights: as in validation.
            row = {"C": strength, **figures(linear.logits(views[0]), training.labels, aim, findings=findings)}
            held = figures(linear.logits(held_out), validation.labels, aim, findings=findings)
            row |= {f"val_{name}": value for name, value in held.items()}
            rows.append(row | {"seconds": round(time.perf_counter() - started, 3)})
            log.info("Probe, C %g: loss %.4f, validation loss %.4f.", strength, row["loss"], row["val_loss"])
            good = row["val_auroc"] if recipe.monitor == "auroc" else -row["val_loss"]
            if best is None or good > most:
                best, most, chosen = linear, good, strength
    assert best is not None
    if chosen == STRENGTHS[-1]:
        log.warning("The probe's best C, %g, is the largest that is tried.", chosen)
    dense.kernel.assign(best.kernel)
    dense.bias.assign(best.bias)
    return pd.DataFrame(rows)


def row_weights(labels: np.ndarray, recipe: Recipe, aim: Aim, *, findings: bool) -> np.ndarray:
    """Return the weights of each row where an output is absent and present, float64 (rows, outputs, 2): those that its
    class or finding has in the loss, times how often the sampling would draw it, which is 1 on average.
    """
    factors = sampling.factors(labels, recipe)
    drawn = np.ones(len(labels)) if factors is None else factors / factors.mean()
    if findings:
        weighed = finding_losses.of(recipe, labels).weights
        by_output = np.ones((labels.shape[1], 2)) if weighed is None else weighed.astype(np.float64)
    else:
        by_output = np.ones((labels.shape[1], 2))
        if aim.class_weight is not None:
            by_output[:, 1] = [aim.class_weight[number] for number in range(labels.shape[1])]
    return drawn[:, None, None] * by_output


def figures(logits: np.ndarray, labels: np.ndarray, aim: Aim, *, findings: bool) -> dict[str, float]:
    """Return loss, accuracy and, where the recipe goes by it, mean AUROC as a training shows them.

    The AUROC is exact, while `MeanAuroc` counts logits in bins: a strong penalty leaves all of them in a few.
    """
    from scipy.special import expit, softmax

    given = expit(logits) if findings else softmax(logits, axis=1)
    found = {"loss": float(aim.loss()(labels, given.astype(np.float32)))}
    for metric in aim.metrics():
        if metric == "accuracy":
            found["accuracy"] = float((given.argmax(axis=1) == labels.argmax(axis=1)).mean())
        elif isinstance(metric, MeanAuroc):
            found["auroc"] = mean_auroc(given, labels)
        else:
            metric.update_state(labels, given.astype(np.float32))
            found[metric.name] = float(metric.result())
    return found


def mean_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean AUROC of the columns of `scores` (rows, outputs) of which both kinds are known in `labels`."""
    from sklearn.metrics import roc_auc_score

    found = []
    for of, targets in zip(scores.T, labels.T, strict=True):
        known = np.isfinite(targets)
        present = targets[known] >= 0.5
        if present.any() and not present.all():
            found.append(roc_auc_score(present, of[known]))
    return float(np.mean(found)) if found else 0.0


def _features(
    front: keras.Model, pixels: np.ndarray, training: np.ndarray, validation: np.ndarray, recipe: Recipe, cache: Path
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the features of the rows `training` as they are and in each augmented view, and of `validation`."""
    if hosts.count() > 1:
        raise InputError(f"probe runs on one host. Allowed: --no-probe, or one host. Received: {hosts.count()}.")
    store = Store(front, pixels, recipe.cache_precision, cache)
    views = [View()]
    if recipe.augment != "none":
        views += [View(recipe.augment, number) for number in range(recipe.cached_views or 0)]
    if reason := cached_features.too_large(store, set(views), recipe.cache_gigabytes, cache):
        raise InputError(f"probe keeps the features of each image in the cache, but {reason}.")
    try:
        seen = [store.filled(view, training)[0][training] for view in views]
        held_out = store.filled(View(), validation)[0][validation]
    except OverflowError as error:
        raise InputError(
            "probe cannot keep these features as float16. Allowed: --cache-precision float32. Received: float16."
        ) from error
    log.info(
        "Features of the frozen backbone: %d of %d computed in %.1f s, %d numbers each.",
        store.computed, len(views) * len(training) + len(validation), store.seconds, front.output.shape[-1],
    )  # fmt: skip
    return seen, held_out
