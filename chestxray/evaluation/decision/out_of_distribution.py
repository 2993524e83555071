"""Refusal of what is no chest radiograph as those of training are: other pictures, turned and inverted films.

Two scores, of which the larger counts. The features of the backbone, averaged over places, are described
by probabilistic principal components (Tipping and Bishop 1999) of the training images; the first score is
Mahalanobis's distance under that description (Lee et al. 2018 use it so). Averaged features hardly show
how a film lies, nor, of some networks, that black and white have changed places. So the second is a
logistic regression on a thumbnail that tells the training films from the same films inverted and turned
(outlier exposure, Hendrycks et al. 2019; turned images as outliers, Golan and El-Yaniv 2018). Each is
measured in units of its own threshold; the common one is taken from validation.
``benchmarks/refusal.md`` has what each refuses, and the scores that were weighed beside it.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.errors import DataError, first_line
from chestxray.evaluation.decision import conformal_quantile
from chestxray.storage import checksums
from chestxray.storage.files import replacing

FILE = "refusal.npz"
#: Most bytes of its arrays: those of 100,000 features have about half as many.
LARGEST = 2**27
#: Most components kept; what lies outside them counts as one noise of equal size in all directions.
COMPONENTS = 64
#: Training images that both scores are learned from.
SAMPLE = 2000
#: Height and width of the thumbnail.
SIDE = 16
#: Grey levels added to a thumbnail's standard deviation: an even picture has no contrast to be made larger.
FAINT = 8.0
#: Inverse strength of the regression's penalty: 40 films are then enough to learn from.
PENALTY = 0.001


@dataclass(frozen=True)
class FeatureDistribution:
    """What chest radiographs look like, and how far is too far.

    ``centre``, ``scale`` float (features,); ``components`` float (kept, features), orthonormal, of
    the standardised features; ``variances`` float (kept,); ``noise`` the variance left over in each
    further direction; ``reach`` the Mahalanobis distance that counts as 1. ``weights`` float (SIDE * SIDE,)
    of a thumbnail's cells and ``bias`` give the second score. ``threshold``, about 1: what is above it
    is refused.
    """

    centre: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    noise: float
    reach: float
    weights: np.ndarray
    bias: float
    threshold: float

    def distances(self, features: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Distances float64 (rows,) from the training radiographs, of `features` (rows, features) and
        `pixels` (rows, height, width) in 0..255: the larger of both scores.
        """
        return np.maximum(self.by_features(features), self.by_pixels(pixels))

    def by_features(self, features: np.ndarray) -> np.ndarray:
        """The first score: float64 (rows,), of `features` (rows, features)."""
        standardised = (features.astype(np.float64) - self.centre) / self.scale
        along = standardised @ self.components.T
        rest = np.maximum((standardised**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.sqrt((along**2 / self.variances).sum(axis=1) + rest / self.noise) / self.reach

    def by_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """The second score: float64 (rows,), of `pixels` (rows, height, width)."""
        return thumbnails(pixels).reshape(len(pixels), -1) @ self.weights + self.bias

    def refused(self, features: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Whether each row is no chest radiograph by its distance: bool (rows,)."""
        return self.distances(features, pixels) > self.threshold

    def write(self, path: Path) -> None:
        """Write the arrays as NPZ, at once."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(self).items()}
            np.savez_compressed(file, **arrays)

    @classmethod
    def read(cls, path: Path) -> FeatureDistribution:
        """Read what `write` wrote.

        Raises:
            DataError: the file is damaged, or of a version that had the first score alone.
        """
        checksums.check(path)
        try:
            _require_small(path)
            with np.load(path, allow_pickle=False) as arrays:
                if "reach" not in arrays and "threshold" in arrays:
                    raise DataError(f"{path} is of an earlier version of chestxray: run it again with this one.")
                found = {name: arrays[name] for name in cls.__dataclass_fields__}
            _require_agreement(found)
        except DataError:
            raise
        except Exception as error:  # damaged archives raise what zlib, zipfile and NumPy's parser have
            raise DataError(f"{path} is damaged: {first_line(error)}.") from error
        fields: dict[str, Any] = {
            name: value.astype(np.float64) if value.ndim else float(value) for name, value in found.items()
        }
        return cls(**fields)


def _require_small(path: Path) -> None:
    """Raises ValueError where the arrays of the archive are larger than any that `learn` makes."""
    with zipfile.ZipFile(path) as archive:
        total = sum(item.file_size for item in archive.infolist())
    if total > LARGEST:
        raise ValueError(f"its arrays have {total:,} bytes, allowed are {LARGEST:,}")


def _require_agreement(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError unless the arrays are finite numbers of shapes that agree, with scales above 0."""
    kept, features = (*arrays["components"].shape, 0, 0)[:2]
    shapes = {"centre": (features,), "scale": (features,), "components": (kept, features), "variances": (kept,)}
    for name, value in arrays.items():
        shape = shapes.get(name, (SIDE * SIDE,) if name == "weights" else ())
        if value.shape != shape or not features:
            raise ValueError(f"{name} must be of shape {shape}. Received: {value.shape}")
        if value.dtype.kind != "f" or not np.isfinite(value).all():
            raise ValueError(f"{name} must hold finite numbers alone")
        if name in ("scale", "variances", "noise", "reach") and not (value > 0).all():
            raise ValueError(f"{name} must be above 0")


def learn(
    training: np.ndarray,
    training_pixels: np.ndarray,
    validation: np.ndarray,
    validation_pixels: np.ndarray,
    allowed: float,
    clusters: np.ndarray | None = None,
) -> FeatureDistribution | None:
    """Describe the training images so that about the share `allowed` of radiographs like those of
    validation is refused.

    Features are (rows, features), pixels of the same rows (rows, height, width) in 0..255. The threshold
    is the conformal quantile of the distances of validation, whose patients, by their codes `clusters`
    int (rows,), count alike (default: a patient a row); where they are too few for that share, see
    `least_allowed`, the farthest distance. None where there are too few training images or features to
    know a radiograph by, or these never vary.
    """
    patients = np.arange(len(validation)) if clusters is None else clusters
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
    weights, bias = _upright(thumbnails(training_pixels))
    parts: dict[str, Any] = {
        "centre": centre,
        "scale": scale,
        "components": found.components_,
        "variances": np.maximum(found.explained_variance_, floor),
        "noise": max(float(found.noise_variance_), floor),
        "weights": weights,
    }
    plain = FeatureDistribution(**parts, reach=1.0, bias=bias, threshold=math.inf)
    # Each score is 1 at its own threshold, so that neither speaks louder than the other.
    reach = max(at_rank(plain.by_features(validation), allowed, patients), 1e-12)
    bias += 1 - at_rank(plain.by_pixels(validation_pixels), allowed, patients)
    alike = FeatureDistribution(**parts, reach=reach, bias=bias, threshold=math.inf)
    threshold = at_rank(alike.distances(validation, validation_pixels), allowed, patients)
    return FeatureDistribution(**parts, reach=reach, bias=bias, threshold=threshold)


def thumbnails(pixels: np.ndarray) -> np.ndarray:
    """float64 (rows, SIDE, SIDE) of `pixels` (rows, height, width) in 0..255: averages over equal cells,
    less their mean, by their standard deviation, so that exposure has no part.
    """
    rows, columns = (averaging(length, SIDE) for length in pixels.shape[1:])
    # Row by row: all of a sample at once would take eight times its pixels.
    cells = np.stack([rows @ image @ columns.T for image in pixels.astype(np.float32)]).astype(np.float64)
    apart = cells - cells.mean(axis=(1, 2), keepdims=True)
    return apart / (apart.std(axis=(1, 2), keepdims=True) + FAINT)


def averaging(given: int, wanted: int) -> np.ndarray:
    """Matrix float32 (wanted, given) that averages over `wanted` equal parts of a line of `given` places.

    >>> (3 * averaging(3, 2)).round().tolist()
    [[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]
    """
    edges = np.linspace(0, given, wanted + 1)
    places = np.arange(given)
    inside = np.minimum(edges[1:, np.newaxis], places + 1) - np.maximum(edges[:-1, np.newaxis], places)
    return (np.maximum(inside, 0) * (wanted / given)).astype(np.float32)


def at_rank(distances: np.ndarray, allowed: float, clusters: np.ndarray) -> float:
    """The conformal quantile of `distances` (rows,) that the share `allowed` of a new patient's images lies
    beyond; where the patients, by their codes `clusters` (rows,), are too few for that, the largest.
    """
    found = conformal_quantile.quantile(distances, clusters, 1 - allowed)
    return float(distances.max()) if found is None else found


def least_allowed(clusters: np.ndarray) -> float:
    """The least share of radiographs that a validation of these patients can promise to refuse at most.

    >>> least_allowed(np.array([0, 0, 1, 2, 3]))
    0.2
    """
    return 1 / (len(np.unique(clusters)) + 1)


def _upright(films: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights float (cells,) and bias of a score that is high for `films` (rows, SIDE, SIDE) inverted or
    turned. Its unit is how far these lie from the films themselves, on average.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    turned = [np.rot90(films, quarters, axes=(1, 2)) for quarters in (1, 2, 3)]
    # A mirrored film is a chest radiograph still, an upside-down one is not, mirrored or not.
    altered = [-films, *turned, films[:, ::-1]]
    cells = np.concatenate([films, *altered]).reshape(-1, SIDE * SIDE)
    is_altered = np.arange(len(cells)) >= len(films)
    # Even pictures alone have cells that never vary.
    scale = cells.std(axis=0) + 1e-6
    # Beside another busy process, threads that wait for each other make so small a fit many times slower.
    with threadpool_limits(1):
        found = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=500).fit(cells / scale, is_altered)
    weights = found.coef_[0] / scale
    scores = cells @ weights
    gap = scores[is_altered].mean() - scores[~is_altered].mean()
    if gap <= 0:  # films that look the same however they lie
        return np.zeros_like(weights), 0.0
    return weights / gap, float(-scores[~is_altered].mean() / gap)
