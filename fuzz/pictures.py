"""Image files of every format, DICOM with codestreams of every kind, changed in the file and in the codestream."""

from __future__ import annotations

import contextlib
import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from chestxray.data.images.pixels import UnreadableImage
from chestxray.data.images.reading import read
from fuzz.mutation import mutated
from hostile_images import ITEM, chunk, dicom, frame, inserted, jpeg, jpeg2000, png, progressive, segment

MOST = 4_000_000
#: Codestreams by transfer syntax, with what the header says beside them.
_CODED: tuple[tuple[str, bytes, dict[str, object]], ...] = (
    (".4.50", jpeg(), {}),
    (".4.51", jpeg(progressive=True), {}),
    (
        ".4.50",
        jpeg(mode="RGB"),
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0},
    ),
    (".4.90", jpeg2000(), {}),
    (".4.91", jpeg2000(tile_size=(16, 16), irreversible=True), {}),
    (".4.90", jpeg2000(mode="I;16"), {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}),
    (".5", struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x07" * 9 + bytes((256 - 47, 7)), {}),
)
_JPEG_PIECES = (
    segment(0xDE, struct.pack(">BHHB", 8, 60_000, 60_000, 1)), frame(60_000, 60_000), frame(40, 30, 0xC2, 3),
    frame(1, 1, 0xC3), b"\0", b"\xff\x01", b"\xff\xd0", b"\xff\xd9", b"\xff\xff", segment(0xFE, bytes(60_000)),
    segment(0xDD, b"\0\1"), segment(0xDC, b"\xff\xff"), segment(0xC4, bytes(17)), segment(0xDB, b"\0" + bytes(64)),
)  # fmt: skip
_PNG_PIECES = (
    chunk(b"tEXt", b"a\0" + bytes(2000)), chunk(b"PLTE"), chunk(b"acTL", bytes(8)), chunk(b"IEND"),
    chunk(b"iCCP", b"a\0\0" + bytes(50)), chunk(b"zTXt", b"a\0\0x"), chunk(b"tRNS", b"\0\1"), chunk(b"eXIf", b"II*\0"),
)  # fmt: skip


def prepare(folder: Path, _: contextlib.ExitStack) -> Callable[[random.Random], None]:
    """A case that reads one changed file."""
    plain = _plain()
    whole = [*plain, *(dicom(syntax, coded, **changes) for syntax, coded, changes in _CODED)]
    path = folder / "film"
    # What is refused before it is changed would never be looked into: all but two of formats that are not read.
    readable = 0
    for content in whole:
        path.write_bytes(content)
        with contextlib.suppress(UnreadableImage):
            read(path)
            readable += 1
    assert readable == len(whole) - 2, f"{readable} of {len(whole)} are read"

    def case(rng: random.Random) -> None:
        path.write_bytes(_file(rng, whole))
        size = rng.choice((None, (64, 64), (1, 1), (300, 20)))
        read(path, size=size, fit=rng.choice(("stretch", "pad", "crop")), max_pixels=MOST)

    return case


def _file(rng: random.Random, whole: list[bytes]) -> bytes:
    way = rng.randrange(10)
    if way < 5:
        return mutated(rng, rng.choice(whole), rng.choice(whole))
    if way < 9:
        syntax, coded, changes = rng.choice(_CODED)
        if rng.random() < 0.6:
            coded = _with_pieces(rng, coded)
        if rng.random() < 0.6:
            coded = mutated(rng, coded, jpeg())
        content = dicom(syntax, coded or b"\0", **changes)
        if rng.random() < 0.2:
            content = inserted(content, b"\x11\x00\x10\x10LO\0\0" * rng.choice((1, 1000, 150_000)))
        if rng.random() < 0.1:
            content = inserted(content, b"\x11\x00\x10\x10SQ\0\0\xff\xff\xff\xff" + (ITEM + b"\0\0\0\0") * 5000)
        return content
    made = rng.choice((_many_chunks, _many_scans, _pages))
    return made(rng)


def _with_pieces(rng: random.Random, coded: bytes) -> bytes:
    for _ in range(rng.choice((1, 2, 3))):
        starts = [place for place in range(len(coded) - 1) if coded[place] == 0xFF] or [0]
        place = rng.choice(starts)
        coded = coded[:place] + rng.choice(_JPEG_PIECES) * rng.choice((1, 1, 1, 50)) + coded[place:]
    return coded


def _many_chunks(rng: random.Random) -> bytes:
    extra = b"".join(rng.choice(_PNG_PIECES) for _ in range(rng.choice((1, 3, 900, 3000))))
    return png(rng.choice((1, 50, 60_000)), rng.choice((1, 50, 60_000)), extra, bits=rng.choice((1, 8, 16, 7)))


def _many_scans(rng: random.Random) -> bytes:
    return mutated(rng, progressive(rng.choice((64, 600)), rng.choice((1, 90, 200))))


def _pages(rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    pages = [Image.new("L", (9, 7), 90)] * rng.choice((2, 150))
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    return mutated(rng, buffer.getvalue())


def _plain() -> list[bytes]:
    """An honest file of each format and mode, (40, 30)."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (30, 40), dtype=np.uint8)
    deep = rng.integers(0, 65536, (30, 40), dtype=np.uint16)
    colour = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    made = []
    for pixels, kind, options in (
        (grey, "PNG", {}), (deep, "PNG", {}), (colour, "PNG", {}), (grey, "BMP", {}), (colour, "BMP", {}),
        (grey, "TIFF", {}), (deep, "TIFF", {"compression": "tiff_lzw"}),
        (colour, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (grey, "TIFF", {"compression": "packbits"}), (deep.astype(np.float32), "TIFF", {}),
        (colour, "TIFF", {"compression": "jpeg"}), (grey, "JPEG", {"exif": turned}),
        (colour, "JPEG", {"progressive": True}),
        (colour, "JPEG", {"subsampling": 2}), (grey, "GIF", {}), (colour, "WEBP", {}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind, **options)
        made.append(buffer.getvalue())
    buffer = io.BytesIO()
    Image.fromarray(colour).convert("P").save(buffer, "PNG", transparency=3)
    made += [buffer.getvalue(), dicom(".1", None), dicom(".2", None)]
    return made
