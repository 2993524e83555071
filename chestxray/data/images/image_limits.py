"""Limits on the work that an image file demands of a decoder, checked by parsing its structure before decoding.

A file of a few kilobytes can demand a billion pixels, twenty thousand scans or millions of chunks. Each check
takes a time proportional to the size of the file and little memory, and refuses a structure that it cannot
parse, since a decoder might interpret it differently.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

#: Maximum number of scans in a JPEG image. Encoders write one, three or about ten; each needs a pass over the image.
SCANS = 100
#: Maximum number of segments in a JPEG file; an ICC profile may have 255, and each scan its own tables.
SEGMENTS = 2_000
#: Maximum number of stray bytes between the segments of a JPEG file: some cameras write a few.
JUNK = 65_536
#: Maximum number of chunks in a PNG file that are not pixels, and minimum mean size of a chunk of pixels in bytes.
CHUNKS = 1_000
SMALL_CHUNK = 512
#: Maximum number of pages in a TIFF file, of tags in a page, and of strips or tiles of its pixels.
PAGES, TAGS, STRIPS = 100, 1_000, 100_000
#: Maximum number of tiles in a JPEG 2000 image, and of packets: one per layer, resolution, component and precinct.
TILES = 4_096
PACKETS = 2_000_000

#: Markers of JPEG and JPEG-LS segments that contain the size of the image.
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_SOI, _EOI, _SOS, _DNL, _DHP, _EXP = 0xD8, 0xD9, 0xDA, 0xDC, 0xDE, 0xDF
#: All markers but restart markers, which occur within coded data and have no length; below 0x80 JPEG-LS has data.
_MARKER = re.compile(rb"\xff([\x80-\xcf\xd8-\xfe])")
_SOC_SIZ = b"\xff\x4f\xff\x51"
_COD, _SOT, _SOD, _EOC = 0xFF52, 0xFF90, 0xFF93, 0xFFD9
_COC = 0xFF53
#: Markers that change the order of packets, or move their headers elsewhere; films do not need them.
_CHANGES = {0xFF5F: "POC", 0xFF60: "PPM", 0xFF61: "PPT", 0xFF51: "a second SIZ"}


class Refused(ValueError):
    """A file that demands too much work, or whose structure cannot be parsed. The message is the reason."""


@dataclass(frozen=True)
class Frame:
    """The width and height in pixels and the components of an image according to its codestream, by which a decoder
    allocates memory.
    """

    width: int
    height: int
    components: int


def check(content: bytes) -> None:
    """Raise `Refused` for a PNG, JPEG or TIFF file that demands too much work. Other files are not checked."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(content)
    elif content.startswith(b"\xff\xd8"):
        _jpeg(content, strict=False)
    elif content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        _check_tiff(content)


def codestream(content: bytes) -> Frame:
    """Return the size and components of the image in a JPEG, JPEG-LS or JPEG 2000 codestream, parsed to its end.

    Raises:
        Refused: it is none of them, such as a JP2 file, which has JPEG 2000 in boxes; it has bytes between its
            segments, a second frame, a hierarchy, or a height given after the pixels; it demands too much work.
    """
    if content.startswith(b"\xff\xd8"):
        frame = _jpeg(content, strict=True)
        if frame is None:
            raise Refused("a JPEG codestream that does not say how large its image is")
        return frame
    if content.startswith(_SOC_SIZ):
        return _jpeg2000(content)
    raise Refused("neither a JPEG nor a JPEG 2000 codestream")


def _jpeg(content: bytes, *, strict: bool) -> Frame | None:
    """Parse a JPEG codestream. `strict` refuses what is not needed in DICOM; image files may have some stray bytes."""
    frame, at, scans, segments, junk, coded = None, 2, 0, 0, 0, False
    while (found := _MARKER.search(content, at)) is not None:
        gap, marker = content[at : found.start()], found[1][0]
        # 0xFF may be repeated before a marker.
        if not coded and gap:
            junk += len(gap)
            if (strict and gap.strip(b"\xff")) or junk > JUNK:
                raise Refused("a JPEG codestream with bytes between its segments")
        at, coded = found.end(), marker == _SOS
        if marker == _EOI:
            return frame
        segments += 1
        scans += marker == _SOS
        if scans > SCANS or segments > SEGMENTS:
            raise Refused(f"a JPEG codestream of more than {SCANS} scans or {SEGMENTS:,} segments")
        if marker == _SOI and not strict:
            continue
        length = int.from_bytes(content[at : at + 2], "big")
        if length < 2 or marker < 0xC0 or marker == _SOI:
            raise Refused("a JPEG codestream that is malformed")
        if marker in (_DHP, _EXP) or (strict and marker == _DNL):
            raise Refused("a JPEG codestream of several frames, or whose height is told later")
        if marker in _FRAMES:
            if frame is not None:
                raise Refused("a JPEG codestream with a second frame")
            frame = _jpeg_frame(content[at : at + length])
        if marker == _SOS and frame is None:
            raise Refused("a JPEG codestream with a scan before its frame")
        at += length
    if not coded and len(content) - at > JUNK:
        raise Refused("a JPEG codestream with bytes between its segments")
    return frame


def _jpeg_frame(segment: bytes) -> Frame:
    if len(segment) < 8:
        raise Refused("a JPEG codestream that is malformed")
    height, width, components = struct.unpack_from(">HHB", segment, 3)
    return Frame(width, height, components)


def _jpeg2000(content: bytes) -> Frame:
    try:
        length, _, *sides, components = struct.unpack_from(">HH8IH", content, 4)
    except struct.error as error:
        raise Refused("a JPEG 2000 codestream that is cut off") from error
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = sides
    sampling = content[42 : 42 + 3 * components]
    if length != 38 + 3 * components or len(sampling) != 3 * components or left >= right or top >= bottom:
        raise Refused("a JPEG 2000 codestream that is malformed")
    if components > 4 or any(step != 1 for at in (1, 2) for step in sampling[at::3]):
        raise Refused("a JPEG 2000 codestream of more than four components, or of components of several sizes")
    if not tile_width or not tile_height or tile_left > left or tile_top > top:
        raise Refused("a JPEG 2000 codestream that is malformed")
    tiles = _parts(right - tile_left, tile_width) * _parts(bottom - tile_top, tile_height)
    if tiles > TILES:
        raise Refused(f"a JPEG 2000 codestream of {tiles:,} tiles; allowed: {TILES:,}")
    frame = Frame(right - left, bottom - top, components)
    _follow_jpeg2000(content, 4 + length, frame, tiles)
    return frame


def _follow_jpeg2000(content: bytes, at: int, frame: Frame, tiles: int) -> None:
    """Parse the main header and the headers of the tile-parts."""
    part = end = 0
    layers = b"\0\0"
    while at + 4 <= len(content):
        marker, length = struct.unpack_from(">HH", content, at)
        if marker == _EOC:
            return
        if marker == _SOD:
            # An end before this point would cause an endless loop.
            if end < at + 2:
                raise Refused("a JPEG 2000 codestream that is malformed")
            at = end
            continue
        if not 0xFF50 <= marker <= 0xFF90 or length < 2 or marker in _CHANGES:
            raise Refused(f"a JPEG 2000 codestream with {_CHANGES.get(marker, 'what cannot be followed')}")
        if marker == _SOT:
            part += 1
            size = int.from_bytes(content[at + 6 : at + 10], "big")
            end = at + size if size else len(content)
            if (size and size < 14) or part > 4 * TILES:
                raise Refused("a JPEG 2000 codestream that is malformed")
        coding = content[at + 4 : at + 2 + length]
        if marker == _COD:
            layers = coding[2:4]
            _check_packets(coding, frame, tiles)
        if marker == _COC:
            # COC is COD for one component: its number, then the content of COD without order, layers and transform.
            _check_packets(coding[1:2] + b"\0" + layers + b"\0" + coding[2:], frame, tiles)
        at += 2 + length


def _check_packets(coding: bytes, frame: Frame, tiles: int) -> None:
    """Raise `Refused` if `coding`, the content of a COD segment, leads to too many packets."""
    if len(coding) < 10:
        raise Refused("a JPEG 2000 codestream that is malformed")
    layers, levels = int.from_bytes(coding[2:4], "big"), coding[5]
    if levels > 32 or (coding[0] & 1 and len(coding) < 11 + levels):
        raise Refused("a JPEG 2000 codestream that is malformed")
    precincts = 0
    for resolution in range(levels + 1):
        # The low and high four bits are the exponents of the precinct's width and height as powers of two.
        size = coding[10 + resolution] if coding[0] & 1 else 0xFF
        down = levels - resolution
        wide = _parts(_parts(frame.width, 1 << down), 1 << (size & 15))
        precincts += wide * _parts(_parts(frame.height, 1 << down), 1 << (size >> 4)) + tiles
    if layers * precincts * frame.components > PACKETS:
        raise Refused(f"a JPEG 2000 codestream of more than {PACKETS:,} packets")


def _parts(whole: int, part: int) -> int:
    return -(-whole // part)


def _check_png(content: bytes) -> None:
    at, others, pixels = 8, 0, 0
    most = CHUNKS + len(content) // SMALL_CHUNK
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"IEND":
            return
        pixels += kind == b"IDAT"
        others += kind != b"IDAT"
        if others > CHUNKS or pixels > most:
            raise Refused(f"a PNG file of more than {CHUNKS:,} chunks beside its pixels, or of countless small ones")
        at += 12 + length


def _check_tiff(content: bytes) -> None:
    """Raise `Refused` for too many pages, tags or strips. Pages may overlap or form a cycle, which never ends."""
    order, big = "<" if content[:1] == b"I" else ">", b"+" in content[2:4]
    number, entry, where = (order + "Q", order + "HHQ8s", 8) if big else (order + "H", order + "HHI4s", 4)
    offset = order + ("Q" if big else "I")
    try:
        (at,) = struct.unpack_from(offset, content, where)
        for _ in range(PAGES):
            (tags,) = struct.unpack_from(number, content, at)
            if tags > TAGS:
                raise Refused(f"a TIFF file of more than {TAGS:,} tags")
            at += struct.calcsize(number)
            for tag, _, count, _ in struct.iter_unpack(entry, content[at : at + tags * struct.calcsize(entry)]):
                if tag in _STRIPS and count > STRIPS:
                    raise Refused(f"a TIFF file of {count:,} strips or tiles; allowed: {STRIPS:,}")
            (at,) = struct.unpack_from(offset, content, at + tags * struct.calcsize(entry))
            if not at:
                return
    except struct.error as error:
        raise Refused("a TIFF file that is malformed") from error
    raise Refused(f"a TIFF file of {PAGES} pages or more")


#: Tags of the position and the size in bytes of each strip or tile.
_STRIPS = (273, 279, 324, 325)
