"""Reading DICOM files as a radiologist's screen shows them. Needs the extra ``dicom`` (pydicom).

Only the pixels and the elements needed to display them are read: names, dates and identifiers of
patients are not. `chestxray.data.images.dicom_identity` reads those, for DICOM files made of a film.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from chestxray.data.images import image_limits
from chestxray.data.images.pixels import UnreadableImage, check_size, scaled_to_uint8

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Standard colour interpretations, which pydicom turns into RGB.
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_GREYS = ("MONOCHROME1", "MONOCHROME2")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
#: Supported transfer syntaxes, PS3.5 section 10. Deflated ones are not, since their whole data set is unpacked, to
#: any size, before its header can be read; nor are videos.
_RLE = "1.2.840.10008.1.2.5"
_CODED = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91))
_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", _RLE, *_CODED)
#: The elements of a header that are read (lookup tables, and all others), and the maximum size of each in bytes.
_TABLES = (0x00283000, 0x00283010, *range(0x00281201, 0x00281205))
_SHORT = (
    *(0x00280000 + element for element in (0x02, 0x04, 0x06, 0x08, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103)),
    *(0x00280000 + element for element in (0x1050, 0x1051, 0x1052, 0x1053, 0x1054, 0x1056)),
    *range(0x00281101, 0x00281105),
)
_TABLE_BYTES, _SHORT_BYTES = 300_000, 1_024
#: Maximum number of reads and bytes for a header: an element takes three reads, and other elements are skipped.
_READS, _HEADER_BYTES = 100_000, 4_000_000
_PIXELS = 0x7FE00010
_FRAGMENTS = 10_000
#: Number of rows converted to grey at a time, so that intermediate results take little memory.
_BAND = 64


def grey(content: bytes, max_pixels: int) -> tuple[np.ndarray, str]:
    """Return the pixels, uint8 (height, width), and the mode of a DICOM file from its bytes.

    The header is read first. The modality transform and the first VOI transform are applied to the
    stored values; MONOCHROME1 (the largest value is black) is inverted. Images of more than 8 bits
    are scaled by the range of the result; 8 bits without a transform are not scaled. The mode is the
    photometric interpretation and the bits stored, such as ``MONOCHROME2/12``.

    Raises:
        UnreadableImage: pydicom or a decoder is missing; several frames; more than `max_pixels`
            pixels; no pixels, or another number than the header says; a header or a compressed image
            that needs more work than that of a film, or is malformed.
    """
    try:
        import pydicom  # noqa: F401 - so that a missing pydicom is not reported as a file that cannot be decoded
    except ImportError as error:
        raise UnreadableImage("DICOM needs pydicom: pip install 'chestxray[dicom]'") from error
    with warnings.catch_warnings():
        # pydicom warns about every irregularity of a header; only those that prevent decoding matter here.
        warnings.simplefilter("ignore")
        try:
            data, kind = _read(content, max_pixels)
            pixels = _shown(data, kind)
        except UnreadableImage:
            raise
        # pydicom, its plugins and numpy may raise any exception for malformed bytes, and all of them
        # mean that the pixels cannot be decoded.
        except Exception as error:
            raise UnreadableImage(f"DICOM cannot be decoded: {_line(error)}") from error
    return pixels, f"{kind}/{int(data.BitsStored)}"


class BoundedFile(io.BytesIO):
    """A file in memory that limits the reads and bytes of a header, however its elements are nested."""

    reads = taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.reads += 1
        self.taken += len(found)
        if self.reads > _READS or self.taken > _HEADER_BYTES:
            raise UnreadableImage("DICOM with a header of countless elements")
        return found


def _read(content: bytes, max_pixels: int) -> tuple[Dataset, str]:
    """Return the pixel data with the elements needed to display them, and the photometric interpretation."""
    import pydicom
    from pydicom.filereader import data_element_generator, read_dataset

    file = BoundedFile(content)
    file.seek(132)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if syntax not in _SYNTAXES:
        raise UnreadableImage(f"DICOM of transfer syntax {_line(ValueError(syntax))[:64]}; allowed: {_ALLOWED}")
    file.seek(0)
    data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_TABLES, *_SHORT])
    kind = _check(data, max_pixels)
    implicit, little = data.original_encoding
    # Data after the pixels are never read, and of a compressed image only the part that was checked is decoded.
    start = file.tell()
    if content.count(b"\xfe\xff\x00\xe0", start) > _FRAGMENTS:
        raise UnreadableImage("DICOM with an image in countless fragments")
    rest = io.BytesIO(content)
    rest.seek(start)
    element = next(data_element_generator(rest, bool(implicit), bool(little)), None)
    if element is None or element.tag != _PIXELS:
        raise UnreadableImage("DICOM without an image of whole numbers")
    data[_PIXELS] = element
    if data.file_meta.TransferSyntaxUID != syntax:
        raise UnreadableImage("DICOM with two transfer syntaxes")
    if syntax in (*_CODED, _RLE):
        _follow(data, syntax)
    return data, kind


_ALLOWED = "uncompressed, RLE, JPEG, JPEG-LS and JPEG 2000"


def _check(header: Dataset, max_pixels: int) -> str:
    """Return the photometric interpretation after checking that the header describes a supported image."""
    for tag in header.keys():  # noqa: SIM118 - iterating over the data set would convert each element first
        element = header.get_item(tag)
        most = _TABLE_BYTES if tag in _TABLES else _SHORT_BYTES
        if isinstance(getattr(element, "value", None), bytes) and len(element.value) > most:
            raise UnreadableImage(f"DICOM with {len(element.value):,} bytes in one element of its header")
    if "Rows" not in header or "Columns" not in header:
        raise UnreadableImage("DICOM without an image")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnreadableImage(f"DICOM with {frames} frames; allowed: one")
    check_size(int(header.Columns), int(header.Rows), max_pixels)
    kind = str(header.get("PhotometricInterpretation", ""))
    if kind not in (*_GREYS, *_COLOURS):
        raise UnreadableImage(f"DICOM of kind {kind or 'unknown'}; allowed: {', '.join((*_GREYS, *_COLOURS))}")
    samples = 1 if kind in (*_GREYS, "PALETTE COLOR") else 3
    found, bits = int(header.get("SamplesPerPixel") or 1), int(header.BitsAllocated)
    if found != samples or bits not in (8, 16):
        raise UnreadableImage(
            f"DICOM of {found} samples of {bits} bits a pixel; allowed of {kind}: {samples} of 8 or 16 bits"
        )
    return kind


def _follow(data: Dataset, syntax: str) -> None:
    """Check the compressed frame against the header, and replace the pixel data by this frame alone. A decoder
    allocates memory by the size in the codestream, which may differ from that in the header.
    """
    from pydicom.encaps import encapsulate, get_frame

    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    said = (int(data.Columns), int(data.Rows))
    if syntax == _RLE:
        _check_rle(frame, said[0] * said[1])
    else:
        found = image_limits.codestream(frame)
        if (found.width, found.height) != said:
            raise UnreadableImage(
                f"the header says {said[0]}x{said[1]} pixels, the image has {found.width}x{found.height}"
            )
        if found.components != int(data.get("SamplesPerPixel") or 1):
            raise UnreadableImage(f"the header says another number of samples than the image has, {found.components}")
    data.PixelData = encapsulate([frame], has_bot=False)
    data[_PIXELS].is_undefined_length = True


def _check_rle(frame: bytes, pixels: int) -> None:
    """Raise `UnreadableImage` if an RLE segment (PS3.5 annex G) unpacks to more bytes than the image has pixels."""
    count, *starts = np.frombuffer(frame[:64].ljust(64, b"\0"), "<u4").tolist()
    starts = starts[: min(count, 15)]
    for start, end in zip(starts, [*starts[1:], len(frame)], strict=True):
        at = made = 0
        segment = frame[start:end]
        while at < len(segment) and made <= pixels + 1:
            header = segment[at]
            made += header + 1 if header < 128 else 257 - header if header > 128 else 0
            at += header + 2 if header < 128 else 2 if header > 128 else 1
        if at < len(segment) - 1:
            raise UnreadableImage("the image unpacks to more pixels than the header says")


def _shown(data: Dataset, kind: str) -> np.ndarray:
    from pydicom.pixels import pixel_array

    stored = pixel_array(data)
    if stored.shape[:2] != (int(data.Rows), int(data.Columns)):
        raise UnreadableImage(f"the header says {data.Columns}x{data.Rows} pixels, the image has {stored.shape[1::-1]}")
    # The transforms work on single values, so that bands of rows can be converted one after the other.
    if kind in _COLOURS:
        return _by_bands(stored, lambda band: _colour_to_grey(band, data, kind))
    shown = _grey_shown(stored, data)
    return np.subtract(255, shown, out=shown) if kind == "MONOCHROME1" else shown


def _colour_to_grey(stored: np.ndarray, data: Dataset, kind: str) -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    colour = apply_color_lut(stored, data) if kind == "PALETTE COLOR" else stored
    full = float(np.iinfo(colour.dtype).max)
    return np.round(colour[..., :3].astype(np.float32) @ _LUMA * (255 / full)).astype(np.uint8)


def _grey_shown(stored: np.ndarray, data: Dataset) -> np.ndarray:
    """Return stored values as displayed, uint8 (height, width). Each distinct value is transformed only once."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    present = np.zeros(65536, bool)
    for band in _bands(stored):
        present[band.view(f"u{stored.dtype.itemsize}")] = True
    found = np.flatnonzero(present).astype(f"u{stored.dtype.itemsize}").view(stored.dtype)
    values = apply_voi_lut(apply_modality_lut(found, data), data, prefer_lut=True)
    plain = values is found or np.array_equal(values, found)
    if plain and int(data.BitsStored) == 8 and stored.dtype == np.uint8:
        return stored
    table = np.zeros(65536, np.uint8)
    table[found.view(f"u{stored.dtype.itemsize}")] = scaled_to_uint8(values)
    return _by_bands(stored, lambda band: table[band.view(f"u{stored.dtype.itemsize}")])


def _by_bands(stored: np.ndarray, shown: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    made = np.empty(stored.shape[:2], np.uint8)
    for top, band in zip(range(0, len(stored), _BAND), _bands(stored), strict=True):
        made[top : top + _BAND] = shown(band)
    return made


def _bands(stored: np.ndarray) -> list[np.ndarray]:
    return [stored[top : top + _BAND] for top in range(0, len(stored), _BAND)]


def _line(error: Exception) -> str:
    """Return the first line of an error message: pydicom's advice may take a page."""
    text = (str(error).splitlines() or [""])[0].strip().rstrip(":")
    if "plugin" in text or "handler" in text or "dependencies" in text:
        text += " (pip install 'chestxray[dicom]' has the decoders)"
    return text or type(error).__name__
