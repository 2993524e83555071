"""Refusal of what is no chest radiograph: pictures whose features are far from all of training.

The features of the backbone, averaged over places, are described by probabilistic principal
components (Tipping and Bishop 1999) of the training images; the distance is Mahalanobis's under that
description (Lee et al. 2018 use it so), and the threshold is taken from validation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.errors import DataError
from chestxray.files import replacing

FILE = "refusal.npz"
#: Most components kept; what lies outside them counts as one noise of equal size in all directions.
COMPONENTS = 64
#: Training images that the description is learned from.
SAMPLE = 2000


@dataclass(frozen=True)
class Familiar:
    """What features of chest radiographs look like, and how far is too far.

    ``centre``, ``scale`` float (features,); ``components`` float (kept, features), orthonormal, of
    the standardised features; ``variances`` float (kept,); ``noise`` the variance left over in each
    further direction; ``threshold`` a distance.
    """

    centre: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    noise: float
    threshold: float

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distances float64 (rows,) of `features` (rows, features)."""
        standardised = (features.astype(np.float64) - self.centre) / self.scale
        along = standardised @ self.components.T
        rest = np.maximum((standardised**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.sqrt((along**2 / self.variances).sum(axis=1) + rest / self.noise)

    def refused(self, features: np.ndarray) -> np.ndarray:
        """Whether each row is no chest radiograph by its distance: bool (rows,)."""
        return self.distances(features) > self.threshold

    def write(self, path: Path) -> None:
        """Write the arrays as NPZ, at once."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(self).items()}
            np.savez_compressed(file, **arrays)

    @classmethod
    def read(cls, path: Path) -> Familiar:
        """Read what `write` wrote.

        Raises:
            DataError: the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in cls.__dataclass_fields__}
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}.") from error
        return cls(**{**found, "noise": float(found["noise"]), "threshold": float(found["threshold"])})


def learn(training: np.ndarray, validation: np.ndarray, allowed: float) -> Familiar | None:
    """Describe `training` features (rows, features) so that about the share `allowed` of radiographs
    like those of `validation` (rows, features) is refused.

    The threshold is the distance of rank ceil((n + 1)(1 - allowed)) among the n of validation; where n
    is too small for that share, the farthest one. None where there are too few training images or
    features to know a radiograph by, or these never vary.
    """
    from sklearn.decomposition import PCA

    training = training.astype(np.float64)
    centre, spread = training.mean(axis=0), training.std(axis=0)
    # A feature that is (nearly) constant in training would make anything else infinitely far.
    scale = np.maximum(spread, max(float(spread.max()) * 1e-3, 1e-12))
    standardised = (training - centre) / scale
    kept = min(COMPONENTS, standardised.shape[1] - 1, len(training) // 4)
    # What varies by no more than float32's rounding says nothing of an image.
    if kept < 1 or float(spread.max()) <= 1e-6 * float(np.abs(centre).max()):
        return None
    found = PCA(n_components=kept, random_state=0).fit(standardised)
    # Directions that training never moved in: a hundredth of the mean variance keeps rounding out of it.
    floor = 1e-2 * float(standardised.var(axis=0).mean()) + 1e-12
    familiar = Familiar(
        centre=centre,
        scale=scale,
        components=found.components_,
        variances=np.maximum(found.explained_variance_, floor),
        noise=max(float(found.noise_variance_), floor),
        threshold=math.inf,
    )
    distances = np.sort(familiar.distances(validation))
    rank = min(math.ceil((len(distances) + 1) * (1 - allowed)), len(distances))
    return Familiar(**{**vars(familiar), "threshold": float(distances[rank - 1])})
