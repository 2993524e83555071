"""DICOM files as a radiologist's screen shows them. Needs the extra ``dicom`` (pydicom).

Only pixels and what they are shown by are read: names, dates and numbers of patients stay where
they are, in the file.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

from chestxray.images import UnreadableImage, check_size, scaled_to_uint8

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Standard colour interpretations, which pydicom turns into RGB.
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_GREYS = ("MONOCHROME1", "MONOCHROME2")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def grey(content: bytes, max_pixels: int) -> tuple[np.ndarray, str]:
    """(uint8 pixels (height, width), mode) of a DICOM file's bytes.

    The header is read first. Stored values go through the modality and the first VOI transform;
    MONOCHROME1 (the largest value is black) is inverted. More than 8 bits are scaled by the range
    of what comes out; 8 bits without a transform stay as they are. The mode is the photometric
    interpretation and the bits stored, such as ``MONOCHROME2/12``.

    Raises:
        UnreadableImage: pydicom or a decoder is missing; several frames; too many pixels; no
            pixels or not as many as the header says.
    """
    try:
        import pydicom
    except ImportError as error:
        raise UnreadableImage("DICOM needs pydicom: pip install 'chestxray[dicom]'") from error
    with warnings.catch_warnings():
        # pydicom warns of every oddity of a header; only what keeps pixels from us matters here.
        warnings.simplefilter("ignore")
        try:
            header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
            kind = _check(header, max_pixels)
            pixels = _shown(pydicom.dcmread(io.BytesIO(content)), kind)
        except UnreadableImage:
            raise
        # pydicom, its plugins and numpy raise whatever a stranger's bytes lead them to, and all of
        # it means one thing: these pixels cannot be had.
        except Exception as error:
            raise UnreadableImage(f"DICOM cannot be decoded: {_line(error)}") from error
    return pixels, f"{kind}/{int(header.BitsStored)}"


def _check(header: Dataset, max_pixels: int) -> str:
    """The photometric interpretation, once everything that the header says can be read."""
    if "Rows" not in header or "Columns" not in header:
        raise UnreadableImage("DICOM without an image")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnreadableImage(f"DICOM with {frames} frames; allowed: one")
    check_size(int(header.Columns), int(header.Rows), max_pixels)
    kind = str(header.get("PhotometricInterpretation", ""))
    if kind not in (*_GREYS, *_COLOURS):
        raise UnreadableImage(f"DICOM of kind {kind or 'unknown'}; allowed: {', '.join((*_GREYS, *_COLOURS))}")
    return kind


def _shown(data: Dataset, kind: str) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

    stored = pixel_array(data)
    if stored.shape[:2] != (int(data.Rows), int(data.Columns)):
        raise UnreadableImage(f"the header says {data.Columns}x{data.Rows} pixels, the image has {stored.shape[1::-1]}")
    if kind in _COLOURS:
        colour = apply_color_lut(stored, data) if kind == "PALETTE COLOR" else stored
        full = float(np.iinfo(colour.dtype).max)
        return np.round(colour[..., :3].astype(np.float32) @ _LUMA * (255 / full)).astype(np.uint8)
    values = apply_voi_lut(apply_modality_lut(stored, data), data, prefer_lut=True)
    plain = values is stored or np.array_equal(values, stored)
    as_stored = plain and int(data.BitsStored) == 8 and stored.dtype == np.uint8
    shown = stored if as_stored else scaled_to_uint8(values)
    return 255 - shown if kind == "MONOCHROME1" else shown


def _line(error: Exception) -> str:
    """The first sentence of a message. pydicom's advice goes on for a page."""
    text = (str(error).splitlines() or [""])[0].strip().rstrip(":")
    if "plugin" in text or "handler" in text or "dependencies" in text:
        text += " (pip install 'chestxray[dicom]' has the decoders)"
    return text or type(error).__name__
