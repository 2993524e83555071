"""Small image files that ask for much work: a few kilobytes to a few megabytes, made here and never kept."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

ITEM = b"\xfe\xff\x00\xe0"


def png(width: int, height: int, extra: bytes = b"", *, bits: int = 1, colour: int = 0, rows: bytes = b"") -> bytes:
    """A PNG of so many pixels, with `extra` chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND")


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG file."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def frame(width: int, height: int, marker: int = 0xC0, components: int = 1) -> bytes:
    """A JPEG frame header, of so many pixels."""
    parts = b"".join(bytes((number, 0x11, 0)) for number in range(1, components + 1))
    return segment(marker, struct.pack(">BHHB", 8, height, width, components) + parts)


def progressive(side: int, scans: int) -> bytes:
    """A grey progressive JPEG of `side` x `side` pixels whose `scans` further scans say nothing."""
    blocks = (-(-side // 8)) ** 2
    one_code = bytes([1, *[0] * 15])
    start = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1] * 64)) + frame(side, side, 0xC2)
    start += segment(0xC4, b"\x00" + one_code + b"\x00")  # DC: a difference of none is the bit 0
    start += segment(0xC4, b"\x10" + one_code + b"\xe0")  # AC: the bit 0 and 14 more end so many blocks
    first = segment(0xDA, bytes((1, 1, 0x00, 0, 0, 0))) + _bits("0" * blocks)
    runs, rest = divmod(blocks, 32767)
    ends = "0" + "1" * 14
    # Ends of 16,384 and fewer blocks at a time, until none is left.
    left = ends * runs + (("0" + format(rest - 16384, "014b")) if rest >= 16384 else ends if rest else "")
    again = segment(0xDA, bytes((1, 1, 0x00, 1, 63, 0))) + _bits(left)
    return start + first + again * scans + b"\xff\xd9"


def _bits(text: str) -> bytes:
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")


def jpeg(size: tuple[int, int] = (40, 30), mode: str = "L", **options: object) -> bytes:
    """An honest JPEG file of one grey; `size` is (width, height)."""
    buffer = io.BytesIO()
    Image.new(mode, size, 120 if mode == "L" else (120, 120, 120)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def jpeg2000(size: tuple[int, int] = (40, 30), mode: str = "L", **options: object) -> bytes:
    """An honest JPEG 2000 codestream, without the boxes of a file."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.full(size[::-1], 700, np.uint16)) if mode == "I;16" else Image.new(mode, size, 120)
    image.save(buffer, "JPEG2000", no_jp2=True, **options)
    return buffer.getvalue()


def dicom(syntax: str, coded: bytes | None, size: tuple[int, int] = (40, 30), **changes: object) -> bytes:
    """A DICOM file around the codestream `coded`, or around zeros where it is None; `size` is (width, height)."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import DigitalXRayImageStorageForPresentation, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = f"1.2.840.10008.1.2{syntax}"
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Columns, data.Rows = size
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    for name, value in changes.items():
        setattr(data, name, value)
    size_in_bytes = size[0] * size[1] * data.SamplesPerPixel * data.BitsAllocated // 8
    data.PixelData = bytes(size_in_bytes + size_in_bytes % 2) if coded is None else encapsulate([coded])
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def inserted(content: bytes, extra: bytes) -> bytes:
    """A DICOM file with `extra` bytes of elements before those of group 0028."""
    at = content.index(b"\x28\x00\x02\x00US")
    return content[:at] + extra + content[at:]
