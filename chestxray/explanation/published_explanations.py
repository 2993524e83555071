"""Heat maps by one of chestxray's own methods or by that of a plugin."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from chestxray import registry
from chestxray.errors import ChestXrayError, PluginError, first_line
from chestxray.explanation.gradcam import enlargement
from chestxray.explanation.methods import METHODS, raw_maps
from chestxray.models.assembly import logits_model
from chestxray.recipe import EXPLANATIONS

#: Share of the maps that lie within their scale.
WITHIN = 0.9


def maps_of(
    method: str, model: keras.Model, layer: str | None, pixels: np.ndarray, classes: np.ndarray, batch_size: int = 16
) -> np.ndarray:
    """Return raw maps, float32 (rows, height, width), of `pixels`, uint8 (rows, height, width, channels).

    `method` is one of `methods.METHODS` or the name of a plugin's, whose maps are in 0..1; `classes`, int (rows,), are
    the classes or findings that are explained. No map is scaled by its own values (`scale_of`).

    Raises:
        InputError, NonFiniteError: the method is unknown; as `methods.raw_maps`.
        PluginError: the plugin fails, or returns something else than maps.
    """
    if method in METHODS:
        return raw_maps(method, model, layer, pixels, np.asarray(classes, np.int32))
    entry = registry.find(registry.EXPLANATIONS, method, EXPLANATIONS)
    explain = registry.load_entry(registry.EXPLANATIONS, entry).explain
    broken = f"The explanation plugin {entry.qualified} {entry.version} is broken: explain"
    scores, found = logits_model(model), []
    for start in range(0, len(pixels), batch_size):
        part = slice(start, start + batch_size)
        given = pixels[part].astype(np.float32)
        try:
            maps = np.asarray(explain(scores, layer, given, np.asarray(classes[part], np.int32)), dtype=np.float32)
        except ChestXrayError:
            raise
        except (Exception, SystemExit) as error:  # of a third party's code
            raise PluginError(f"{broken} failed with {type(error).__name__}: {first_line(error)}.") from error
        if wrong := fault(maps, given.shape):
            raise PluginError(f"{broken} {wrong}")
        rows, columns = (enlargement(n, wanted) for n, wanted in zip(maps.shape[1:], given.shape[1:3], strict=True))
        found.append(rows @ maps @ columns.T)
    return np.clip(np.concatenate(found), 0.0, 1.0)


def unit_of(method: str) -> str:
    """Return the unit of a method's maps in words."""
    return METHODS[method].unit if method in METHODS else "share, as the plugin gives it"


def scale_of(peaks: np.ndarray | Sequence[float]) -> tuple[float, int]:
    """Return the end of the one scale of maps whose highest values are `peaks`, and the number of maps beyond it.

    A tenth of many maps may be beyond, and has the hottest colour there: on a scale that ended at the highest value of
    all, one outlier would leave the other maps too faint to be seen. Ten maps or fewer end at their highest value.
    An empty map stays empty beside others; where all are empty the end is 0.

    >>> scale_of([0, 1, 2]), scale_of([1] * 19 + [30]), scale_of([0] * 19 + [3])
    ((2.0, 0), (1.0, 1), (3.0, 0))
    """
    peaks = np.asarray(peaks, np.float64)
    if not peaks.size:
        return 0.0, 0
    end = float(np.quantile(peaks, WITHIN, method="higher")) or float(peaks.max())
    return end, int((peaks > end).sum())


def on_scale(maps: np.ndarray, end: float) -> np.ndarray:
    """Return raw `maps` of any shape in 0..1 on a scale that ends at `end`; all 0 where it is 0."""
    return np.clip(maps / end, 0, 1) if end > 0 else np.zeros_like(maps)


def fault(maps: np.ndarray, shape: tuple[int, ...]) -> str:
    """Return what is wrong with `maps` of images of that `shape` (rows, height, width, channels), ``""`` if nothing."""
    fits = maps.ndim == 3 and len(maps) == shape[0] and maps.shape[1] <= shape[1] and maps.shape[2] <= shape[2]
    if not fits or not maps.size:
        return f"must return maps ({shape[0]}, up to {shape[1]}, up to {shape[2]}). Received: {maps.shape}."
    if not np.isfinite(maps).all():
        return "must return finite numbers. Received: NaN or infinity."
    if maps.min() < -1e-6 or maps.max() > 1 + 1e-6:
        return f"must return numbers in 0..1. Received: {maps.min():g} to {maps.max():g}."
    return ""
