"""The lungs of chest radiographs: a small U-Net of our own with its weights. The README says how well it does."""

from pathlib import Path

import numpy as np

from chestxray.plugin import SegmenterPlugin


def masks(pixels: np.ndarray) -> np.ndarray:
    """Return the lungs of films, as `SegmenterPlugin` has it. Keras and the weights are loaded by the first call."""
    from chestxray_lungs import segmentation

    return segmentation.masks(pixels)


plugin = SegmenterPlugin(
    masks=masks,
    weights=Path(__file__).with_name("lungs.safetensors"),
    reference="Ronneberger and others 2015, U-Net, arXiv:1505.04597; trained on phantoms and the Montgomery County set "
    "(Jaeger and others 2014)",
    licence="Apache-2.0",
)
