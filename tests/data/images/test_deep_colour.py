"""16-bit colour is read with all its bits, whatever way it is stored, or refused with the reason."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from chestxray.data.images.pixels import UnreadableImage, scaled_to_uint8
from chestxray.data.images.reading import decode
from image_bytes import saved

#: A 12-bit film: its upper bytes alone have sixteen values.
FILM = np.linspace(0, 4095, 24 * 20).reshape(20, 24).astype(np.uint16)
COLOUR = np.random.default_rng(3).integers(0, 4096, (20, 24, 3)).astype(np.uint16)
ALPHA = np.random.default_rng(4).integers(0, 65536, (20, 24, 1)).astype(np.uint16)
BRIGHTNESS = (COLOUR.astype(np.int64) @ [299, 587, 114] + 500) // 1000


def png(values, kind, *extra):
    """A PNG file of uint16 `values` (height, width, channels), its rows filtered in all five ways in turn."""
    height, width, channels = values.shape
    step, rows, above = 2 * channels, b"", bytes(2 * width * channels)
    for number, row in enumerate(values.astype(">u2")):
        line = row.tobytes()
        left = bytes(step) + line[:-step]
        corner = bytes(step) + above[:-step]
        guess = {
            0: lambda a, b, c: 0, 1: lambda a, b, c: a, 2: lambda a, b, c: b, 3: lambda a, b, c: (a + b) // 2,
            4: lambda a, b, c: min((a, b, c), key=lambda v: abs(a + b - c - v)),
        }[number % 5]  # fmt: skip
        rows += bytes([number % 5])
        rows += bytes((x - guess(a, b, c)) % 256 for x, a, b, c in zip(line, left, above, corner, strict=True))
        above = line
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


def tiff(values, order, *, planes=False, photometric=2, extra=(), orientation=1):
    """An uncompressed TIFF file of uint16 `values` (height, width, channels), in the byte order `order`."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2")
    strips = [data[..., i].tobytes() for i in range(channels)] if planes else [data.tobytes()]
    entries = {256: [width], 257: [height], 258: [16] * channels, 259: [1], 262: [photometric], 274: [orientation],
               277: [channels], 278: [height], 279: [len(s) for s in strips], 284: [2 if planes else 1]}  # fmt: skip
    entries |= {338: list(extra)} if extra else {}
    after = 8 + 2 + 12 * (len(entries) + 1) + 4
    lists, places = b"", {}
    for tag, numbers in (*entries.items(), (273, strips)):
        places[tag] = after + len(lists)
        lists += bytes(4 * len(numbers)) if len(numbers) > 1 else b""
    starts = [after + len(lists) + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries[273] = starts
    table = struct.pack(f"{order}H", len(entries))
    filled = bytearray(lists)
    for tag in sorted(entries):
        numbers = struct.pack(f"{order}{len(entries[tag])}I", *entries[tag])
        if len(entries[tag]) > 1:
            filled[places[tag] - after : places[tag] - after + len(numbers)] = numbers
            numbers = struct.pack(f"{order}I", places[tag])
        table += struct.pack(f"{order}HHI", tag, 4, len(entries[tag])) + numbers
    first = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return first + table + bytes(4) + bytes(filled) + b"".join(strips)


def of_range(values):
    return scaled_to_uint8(np.asarray(values, dtype=np.float32))


@pytest.mark.parametrize("content", [png(np.stack([FILM] * 3, 2), 2), tiff(np.stack([FILM] * 3, 2), "<"),
                                     tiff(np.stack([FILM] * 3, 2), ">")], ids=["png", "little", "big"])  # fmt: skip
def test_colour_of_equal_channels_is_the_grey_that_it_shows(content):
    found = decode(content)
    assert (found.pixels == decode(saved(FILM, "PNG")).pixels).all()
    assert len(np.unique(found.pixels)) > 200
    assert found.mode == "RGB;16"


def test_all_sixteen_bits_of_every_channel_are_read():
    for content in (png(COLOUR, 2), tiff(COLOUR, "<"), tiff(COLOUR, ">")):
        assert (decode(content).pixels == of_range(BRIGHTNESS)).all()


def test_transparency_is_laid_over_black():
    share = ALPHA[..., 0].astype(np.float32) / 65535
    both = np.concatenate([COLOUR, ALPHA], axis=2)
    for content in (png(both, 6), tiff(both, "<", extra=(2,)), tiff(both, ">", extra=(2,))):
        assert (decode(content).pixels == of_range(BRIGHTNESS.astype(np.float32) * share)).all()
    grey = np.concatenate([FILM[..., None], ALPHA], axis=2)
    assert (decode(png(grey, 4)).pixels == of_range(FILM.astype(np.float32) * share)).all()
    clear = (b"tRNS", COLOUR[3, 5].astype(">u2").tobytes())
    values = BRIGHTNESS.copy()
    values[(COLOUR[3, 5] == COLOUR).all(axis=2)] = 0
    assert (decode(png(COLOUR, 2, clear)).pixels == of_range(values)).all()


def test_an_orientation_is_applied():
    upright = decode(tiff(COLOUR, "<")).pixels
    turned = decode(tiff(np.ascontiguousarray(COLOUR[::-1, ::-1]), "<", orientation=3)).pixels
    assert (turned == upright).all()
    exif = Image.Exif()
    exif[0x0112] = 8
    lying = png(np.ascontiguousarray(np.rot90(COLOUR, -1)), 2, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    assert (decode(lying).pixels == upright).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff(COLOUR, "<", planes=True), "16-bit colour stored as planes is not supported"),
        (tiff(np.concatenate([COLOUR, ALPHA], 2), ">", photometric=5), "stored as CMYK;16B is not supported"),
        (tiff(np.concatenate([COLOUR, ALPHA], 2), "<", extra=(1,)), "stored as RGBa;16L is not supported"),
        (png(COLOUR, 2)[:-90], "PNG cannot be decoded"),
    ],
)
def test_what_is_stored_in_another_way_is_refused_with_the_reason(content, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(content)


def test_eight_bits_are_read_as_before():
    film = Image.fromarray((COLOUR >> 4).astype(np.uint8))
    for kind in ("PNG", "TIFF"):
        found = decode(saved(film, kind))
        assert found.mode == "RGB"
        assert (found.pixels == np.asarray(film.convert("L"))).all()
