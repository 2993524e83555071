"""The cost of choosing epoch, calibration, threshold and conformal limit on the same validation set.

A small model is trained many times on simulated data: logistic regression on features most of which are
noise, so that later epochs overfit. Its epoch is chosen by the loss on one validation set. Calibration,
threshold and limit are then chosen on the same set, or on a second, unused one of the same size. Both are
evaluated on 20,000 further rows.

    python -m benchmarks.validation_reuse          # about two minutes
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from chestxray.errors import InputError
from chestxray.evaluation.decision import conformal, operating_point, temperature_scaling
from chestxray.evaluation.metrics import calibration_error
from chestxray.evaluation.predictions import Predictions

FEATURES, SIGNAL, EPOCHS = 60, 6, 40
COVERAGE, SENSITIVITY = 0.9, 0.9
SIZES = (50, 100, 200, 500)
CLASSES = ("clear", "sick")
FIGURES = ("coverage", "sensitivity", "calibration error", "promise missed")
CONFIDENCE = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=200)
    draws = parser.parse_args().draws
    print(f"Means over {draws} draws and their standard errors; {COVERAGE:g} is promised of coverage, and a")
    print(f"sensitivity of {SENSITIVITY:g} was asked for; promised with confidence {CONFIDENCE:g} it may be missed in")
    print("one draw of twenty; draws with too few patients to promise it count as kept.\n")
    print(
        "| validation rows | figure | all on the same | on a second one | difference |\n| --- | --- | --- | --- | --- |"
    )
    for size in SIZES:
        found = np.array([draw(size, seed) for seed in range(draws)])
        for place, name in enumerate(FIGURES):
            same, second = found[:, 0, place], found[:, 1, place]
            gap = same - second
            told = " | ".join(f"{v.mean():.4f} ± {v.std(ddof=1) / np.sqrt(draws):.4f}" for v in (same, second, gap))
            print(f"| {size} | {name} | {told} |", flush=True)


def draw(size: int, seed: int) -> np.ndarray:
    """Return `FIGURES` as float (2, figures): all chosen on the same validation set, and with a second one."""
    generator = np.random.default_rng(seed)
    slopes = np.zeros(FEATURES)
    slopes[:SIGNAL] = generator.normal(0, 0.9, SIGNAL)
    train, first, second, test = (rows(generator, slopes, n) for n in (300, size, size, 20_000))
    kept = chosen_epoch(train, first)
    return np.array([judged(kept, validation, test) for validation in (first, second)])


def rows(generator: np.random.Generator, slopes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    features = generator.normal(size=(count, len(slopes)))
    truth = generator.random(count) < 1 / (1 + np.exp(-features @ slopes))
    # Each class occurs at least once, as in any split.
    truth[:2] = [False, True]
    return features, truth.astype(int)


def chosen_epoch(train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the coefficients (features,) at the epoch of gradient descent with the lowest loss on `validation`."""
    features, truth = train
    slopes, best = np.zeros(FEATURES), (np.inf, np.zeros(FEATURES))
    for _ in range(EPOCHS):
        for _ in range(5):
            slopes = slopes - 0.5 * features.T @ (1 / (1 + np.exp(-features @ slopes)) - truth) / len(truth)
        logits = validation[0] @ slopes
        loss = float(np.mean(np.logaddexp(0, logits) - validation[1] * logits))
        if loss < best[0]:
            best = loss, slopes
    return best[1]


def judged(slopes: np.ndarray, validation: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> list:
    held = predictions(slopes, *validation)
    fitted = temperature_scaling.fit(held)
    calibrated = fitted.applied(held.probabilities)
    limit = conformal.quantile(calibrated, validation[1], COVERAGE, np.arange(len(calibrated)))
    threshold = operating_point.choose(calibrated[:, 1], validation[1] == 1, SENSITIVITY)
    there = fitted.applied(predictions(slopes, *test).probabilities)
    inside = conformal.sets(there, limit)[np.arange(len(test[1])), test[1]]
    error = calibration_error(there.max(axis=1), there.argmax(axis=1) == test[1])
    found = there[test[1] == 1, 1]
    broken = missed(calibrated[:, 1], validation[1] == 1, found)
    return [inside.mean(), (found >= threshold).mean(), error, float(broken)]


def missed(scores: np.ndarray, positive: np.ndarray, found: np.ndarray) -> bool:
    """Return whether the threshold that guarantees the sensitivity finds a smaller proportion of the scores `found`."""
    try:
        threshold = operating_point.choose(scores, positive, SENSITIVITY, confidence=CONFIDENCE)
    except InputError:
        return False
    return bool((found >= threshold).mean() < SENSITIVITY)


def predictions(slopes: np.ndarray, features: np.ndarray, truth: np.ndarray) -> Predictions:
    sick = 1 / (1 + np.exp(-features @ slopes))
    table = pd.DataFrame({"path": np.arange(len(truth)).astype(str), "patient": "", "split": "", "source": "drawn"})
    table["label"] = np.asarray(CLASSES, dtype=object)[truth]
    return Predictions.from_probabilities(table, CLASSES, np.column_stack([1 - sick, sick]))


if __name__ == "__main__":
    main()
