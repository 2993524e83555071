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
#: Transfer syntax whose whole data set is unpacked, to whatever size, before its header can be read.
_DEFLATED = "1.2.840.10008.1.2.1.99"
#: JPEG's and JPEG-LS's markers that say how large an image is.
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})


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
            _check_syntax(content)
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


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG, JPEG-LS or JPEG 2000 codestream says; None where it is none of them.

    A decoder allocates by these numbers, whatever the DICOM header around them says.
    """
    if frame.startswith(b"\xff\x4f\xff\x51") and len(frame) >= 24:
        right, bottom, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in range(8, 24, 4))
        return right - left, bottom - top
    at = 2 if frame.startswith(b"\xff\xd8") else len(frame)
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] in _FRAMES:
            return int.from_bytes(frame[at + 7 : at + 9], "big"), int.from_bytes(frame[at + 5 : at + 7], "big")
        # 0xFF may be repeated before a marker; all other markers here are followed by their length.
        at += 1 if frame[at + 1] == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _check_syntax(content: bytes) -> None:
    from pydicom.filereader import read_dataset

    meta = read_dataset(
        io.BytesIO(content[132:]), is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2
    )
    if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
        raise UnreadableImage("DICOM with a deflated data set; allowed: every other transfer syntax")


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
    from pydicom.encaps import get_frame
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

    if data.file_meta.TransferSyntaxUID.is_encapsulated:
        size = codestream_size(get_frame(data.PixelData, 0, number_of_frames=1))
        if size not in (None, (int(data.Columns), int(data.Rows))):
            raise UnreadableImage(f"the header says {data.Columns}x{data.Rows} pixels, the image has {size}")
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
