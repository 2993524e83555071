"""The layouts in which public sets say which findings an image shows, by the name that ``layout=`` has for each."""

from __future__ import annotations

from chestxray.data.sources.label_layouts import nih, outlined, padchest, plain, vindr
from chestxray.data.sources.label_layouts.labels import Given, Labels, Reader

__all__ = ["LAYOUTS", "Given", "Labels", "Reader"]

LAYOUTS: dict[str, Reader] = {
    "nih": nih.nih,
    "chexpert": plain.chexpert,
    "mimic": plain.mimic,
    "padchest": padchest.padchest,
    "vindr": vindr.vindr,
    "rsna": outlined.rsna,
    "siim": outlined.siim,
    "tbx11k": outlined.tbx11k,
}
