"""Out-of-distribution detection: refuses images that are not chest radiographs like those of training.

These are other images, and rotated or inverted films. The larger of two scores counts. The features of the
backbone, averaged over positions, are modelled by probabilistic principal components (Tipping and Bishop 1999)
of the training images; the first score is the Mahalanobis distance under that model (Lee et al. 2018).
Averaged features hardly show the orientation of a film nor, for some networks, that black and white are
swapped. The second score is therefore a logistic regression on a thumbnail that separates the training films
from the same films inverted and rotated (outlier exposure, Hendrycks et al. 2019; rotated images as outliers,
Golan and El-Yaniv 2018). Each is measured in units of its own threshold; the common threshold comes from
validation. ``benchmarks/refusal.md`` has the refusal rates, and the alternatives that were compared.
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
#: Most bytes of its arrays in memory; 100,000 features need about half.
LARGEST = 2**27
#: Most principal components; the remaining variance is modelled as isotropic noise.
COMPONENTS = 64
#: Most training images that both scores are fitted on.
SAMPLE = 2000
#: Height and width of the thumbnail.
SIDE = 16
#: Grey levels added to a thumbnail's standard deviation, so that the noise of an even picture is not amplified.
FAINT = 8.0
#: Inverse strength of the regression's penalty: 40 films are then enough to fit it.
PENALTY = 0.001


@dataclass(frozen=True)
class FeatureDistribution:
    """The distribution of features and thumbnails of chest radiographs, with the threshold of refusal.

    ``centre``, ``scale`` float (features,); ``components`` float (kept, features), orthonormal, of
    the standardised features; ``variances`` float (kept,); ``noise`` the variance in each further
    direction; ``reach`` the Mahalanobis distance at which the first score is 1. ``weights`` float (SIDE * SIDE,)
    of a thumbnail's cells and ``bias`` give the second score. ``threshold``, about 1: an image with a larger distance
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
        """Return the distances from the training radiographs, float64 (rows,), the larger of both scores, for
        `features` (rows, features) and `pixels` (rows, height, width) in 0..255.
        """
        return np.maximum(self.by_features(features), self.by_pixels(pixels))

    def by_features(self, features: np.ndarray) -> np.ndarray:
        """Return the first score, float64 (rows,), for `features` (rows, features)."""
        standardised = (features.astype(np.float64) - self.centre) / self.scale
        along = standardised @ self.components.T
        rest = np.maximum((standardised**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.sqrt((along**2 / self.variances).sum(axis=1) + rest / self.noise) / self.reach

    def by_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return the second score, float64 (rows,), for `pixels` (rows, height, width)."""
        return thumbnails(pixels).reshape(len(pixels), -1) @ self.weights + self.bias

    def refused(self, features: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Return whether each row is refused, its distance being above the threshold: bool (rows,)."""
        return self.distances(features, pixels) > self.threshold

    def write(self, path: Path) -> None:
        """Write the arrays as NPZ, whole or not at all."""
        with replacing(path) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(self).items()}
            np.savez_compressed(file, **arrays)

    @classmethod
    def read(cls, path: Path) -> FeatureDistribution:
        """Read what `write` wrote.

        Raises:
            DataError: the file is damaged, or of an earlier version without the second score.
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
    """Raise ValueError where the arrays of the archive are larger than any that `learn` makes."""
    with zipfile.ZipFile(path) as archive:
        total = sum(item.file_size for item in archive.infolist())
    if total > LARGEST:
        raise ValueError(f"its arrays have {total:,} bytes, allowed are {LARGEST:,}")


def _require_agreement(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless the arrays are finite numbers of shapes that agree, with scales above 0."""
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
    """Fit the distribution of the training images so that about the proportion `allowed` of radiographs like those
    of validation is refused.

    Features are (rows, features), pixels of the same rows (rows, height, width) in 0..255. The threshold
    is the conformal quantile of the distances of validation, each patient weighted equally; `clusters` are the
    codes of the patients, int (rows,) (default: a patient a row). With too few patients for that proportion, see
    `least_allowed`, it is the largest distance. Returns None with too few training images or features, or where
    the features never vary.
    """
    patients = np.arange(len(validation)) if clusters is None else clusters
    from sklearn.decomposition import PCA

    training = training.astype(np.float64)
    centre, spread = training.mean(axis=0), training.std(axis=0)
    # A feature that is (nearly) constant in training would make the distance of every other image infinite.
    scale = np.maximum(spread, max(float(spread.max()) * 1e-3, 1e-12))
    standardised = (training - centre) / scale
    kept = min(COMPONENTS, standardised.shape[1] - 1, len(training) // 4)
    # Variation within float32's rounding carries no information.
    if kept < 1 or float(spread.max()) <= 1e-6 * float(np.abs(centre).max()):
        return None
    found = PCA(n_components=kept, random_state=0).fit(standardised)
    # A floor of a hundredth of the mean variance suppresses rounding in directions without variance in training.
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
    # Each score is 1 at its own threshold, so that both have equal weight.
    reach = max(at_rank(plain.by_features(validation), allowed, patients), 1e-12)
    bias += 1 - at_rank(plain.by_pixels(validation_pixels), allowed, patients)
    alike = FeatureDistribution(**parts, reach=reach, bias=bias, threshold=math.inf)
    threshold = at_rank(alike.distances(validation, validation_pixels), allowed, patients)
    return FeatureDistribution(**parts, reach=reach, bias=bias, threshold=threshold)


def thumbnails(pixels: np.ndarray) -> np.ndarray:
    """Return thumbnails, float64 (rows, SIDE, SIDE), of `pixels` (rows, height, width) in 0..255: averages over equal
    cells, minus their mean, divided by their standard deviation, which removes differences of exposure.
    """
    rows, columns = (averaging(length, SIDE) for length in pixels.shape[1:])
    # Image by image: the whole sample at once would take eight times the memory of its pixels.
    cells = np.stack([rows @ image @ columns.T for image in pixels.astype(np.float32)]).astype(np.float64)
    apart = cells - cells.mean(axis=(1, 2), keepdims=True)
    return apart / (apart.std(axis=(1, 2), keepdims=True) + FAINT)


def averaging(given: int, wanted: int) -> np.ndarray:
    """Return the matrix, float32 (wanted, given), that averages a line of `given` pixels over `wanted` equal parts.

    >>> (3 * averaging(3, 2)).round().tolist()
    [[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]
    """
    edges = np.linspace(0, given, wanted + 1)
    places = np.arange(given)
    inside = np.minimum(edges[1:, np.newaxis], places + 1) - np.maximum(edges[:-1, np.newaxis], places)
    return (np.maximum(inside, 0) * (wanted / given)).astype(np.float32)


def at_rank(distances: np.ndarray, allowed: float, clusters: np.ndarray) -> float:
    """Return the conformal quantile of `distances`, float (rows,), exceeded by the proportion `allowed` of a new
    patient's images; with too few patients (codes `clusters`, (rows,)) for that, the largest distance.
    """
    found = conformal_quantile.quantile(distances, clusters, 1 - allowed)
    return float(distances.max()) if found is None else found


def least_allowed(clusters: np.ndarray) -> float:
    """Return the least upper bound on the proportion of refused radiographs that validation with these patients can
    guarantee.

    >>> least_allowed(np.array([0, 0, 1, 2, 3]))
    0.2
    """
    return 1 / (len(np.unique(clusters)) + 1)


def _upright(films: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the weights, float (cells,), and bias of a score that is high for inverted or rotated `films`, (rows,
    SIDE, SIDE). Its unit is the mean distance of these from the films themselves.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    turned = [np.rot90(films, quarters, axes=(1, 2)) for quarters in (1, 2, 3)]
    # A film mirrored left to right is still accepted; one upside down is refused, mirrored or not.
    altered = [-films, *turned, films[:, ::-1]]
    cells = np.concatenate([films, *altered]).reshape(-1, SIDE * SIDE)
    is_altered = np.arange(len(cells)) >= len(films)
    # The scale of a cell is 0 only where all images are uniform.
    scale = cells.std(axis=0) + 1e-6
    # Beside another busy process, threads that wait for each other make so small a fit many times slower.
    with threadpool_limits(1):
        found = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=500).fit(cells / scale, is_altered)
    weights = found.coef_[0] / scale
    scores = cells @ weights
    gap = scores[is_altered].mean() - scores[~is_altered].mean()
    if gap <= 0:  # films that look the same in every orientation
        return np.zeros_like(weights), 0.0
    return weights / gap, float(-scores[~is_altered].mean() / gap)
