"""The lungs of films, found by the segmenter that is installed, if any."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from chestxray import registry
from chestxray.errors import ChestXrayError, PluginError


def segmenter() -> registry.InstalledPlugin | None:
    """Return the installed segmenter, None where there is none; it is not imported.

    Raises:
        PluginError: several are installed, none of which is chosen.
    """
    found = registry.entries(registry.SEGMENTERS)
    if len(found) > 1:
        names = ", ".join(entry.qualified for entry in found)
        raise PluginError(
            f"One segmenter may be installed. Uninstall the others, or name them in {registry.DISABLED}. "
            f"Received: {names}."
        )
    return found[0] if found else None


def lung_masks(entry: registry.InstalledPlugin, pixels: np.ndarray) -> np.ndarray:
    """Return the lungs of films `pixels`, uint8 (rows, height, width), by the segmenter `entry`: bool, same shape.

    The mask of a film in which it finds no plausible lungs is empty.

    Raises:
        PluginError: the segmenter cannot be imported, fails, or returns something else than masks.
    """
    plugin = registry.load_entry(registry.SEGMENTERS, entry)
    try:
        return masks_of(plugin.masks, pixels)
    except PluginError as error:
        raise PluginError(f"The segmenter plugin {entry.qualified} {entry.version} is broken: {error}") from error


def masks_of(masks: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Return what the function `masks` of a `SegmenterPlugin` returns for `pixels`, uint8 (rows, height, width).

    Raises:
        PluginError: it fails, or returns something else than bool masks of that shape.
    """
    try:
        found = masks(pixels)
    except ChestXrayError:
        raise
    except Exception as error:  # of a third party's code
        raise PluginError(f"masks failed with {type(error).__name__}: {error}") from error
    shape, kind = getattr(found, "shape", None), getattr(found, "dtype", None)
    if shape != pixels.shape or kind != np.bool_:
        raise PluginError(f"masks must return bool {pixels.shape}. Received: {kind} {shape}.")
    return np.asarray(found)
