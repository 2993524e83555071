"""How alike two heat maps are: Spearman's rank correlation, and the structural similarity of Wang et al. (2004).

Both on SciPy, so that they are the same with TensorFlow and with JAX. Maps are of 0 and more (`Explain`): the sign
that some methods have was taken off by the method, and only likeness counts, not its opposite.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

#: The names of the columns of `similarities`.
MEASURES = ("rank_correlation", "ssim")
#: Wang's window, a Gaussian of 11 by 11 pixels, and his constants.
DEVIATION, RADIUS, K1, K2 = 1.5, 5, 0.01, 0.03


def similarities(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how alike each pair of maps is, float64 (rows, 2), a column for each of `MEASURES`.

    `first`, `second`: maps, float (rows, height, width), of 0 and more. A constant map, such as an empty one, has no
    ranks. Two constant maps show the same, nothing, and have 1; of a constant map and another both measures are 0.
    Structural similarity alone would call a map that is empty but for one spot almost equal to an empty one.
    """
    constant = is_constant(first), is_constant(second)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.stack([rank_correlation(first, second), ssim(first, second)], axis=1)
    found[constant[0] | constant[1]] = 0.0
    found[constant[0] & constant[1]] = 1.0
    return found


def is_constant(maps: np.ndarray) -> np.ndarray:
    """Return which of `maps` (rows, height, width) have one value everywhere, but for rounding: bool (rows,)."""
    low, high = maps.min(axis=(1, 2)), maps.max(axis=(1, 2))
    return high - low <= 1e-6 * np.abs(high)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation of each pair of maps (rows, height, width): float64 (rows,), NaN where a map
    is constant.
    """
    # In float64, since newer versions of SciPy give the ranks of float32 in float32.
    ranks = [rankdata(maps.reshape(len(maps), -1).astype(np.float64), axis=1) for maps in (first, second)]
    apart = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    lengths = [np.sqrt(np.einsum("ij,ij->i", one, one)) for one in apart]
    return np.einsum("ij,ij->i", *apart) / (lengths[0] * lengths[1])


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the structural similarity (Wang 2004) of each pair of maps (rows, height, width), float64 (rows,).

    Each map is divided by its highest value. The mean is over the windows that lie within the map; in a map smaller
    than a window over all, reflected at the edges.
    """
    x, y = (_scaled(maps) for maps in (first, second))
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x, variance_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    above = (2 * mean_x * mean_y + K1**2) * (2 * covariance + K2**2)
    below = (mean_x**2 + mean_y**2 + K1**2) * (variance_x + variance_y + K2**2)
    rows, columns = (slice(RADIUS, -RADIUS) if side > 2 * RADIUS else slice(None) for side in x.shape[1:])
    return (above / below)[:, rows, columns].mean(axis=(1, 2))


def _scaled(maps: np.ndarray) -> np.ndarray:
    high = maps.max(axis=(1, 2), keepdims=True).astype(np.float64)
    return maps / np.where(high > 0, high, 1.0)


def _blurred(maps: np.ndarray) -> np.ndarray:
    return gaussian_filter(maps, DEVIATION, radius=RADIUS, axes=(1, 2))
