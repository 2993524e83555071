"""Files that ask for more work than a film does are refused by their structure, in the time it takes to read them."""

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chestxray.data.images import image_limits
from chestxray.data.images.pixels import UnreadableImage
from chestxray.data.images.reading import decode
from hostile_images import ITEM, chunk, dicom, frame, inserted, jpeg, jpeg2000, png, progressive, segment

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")

TABLE = segment(0xDB, b"\0" + bytes([1] * 64))
LARGE = frame(60_000, 60_000)
HONEST = jpeg()[2:]


#: Codestreams around which a DICOM header says 40x30 pixels, and of what decoders make gigabytes.
def _ending_within_its_header() -> bytes:
    """After the data of a tile-part comes what is at its end: here a comment that has been read already, for ever."""
    coded = jpeg2000()
    tile = coded.index(b"\xff\x90")
    comment = b"\xff\x64\0\4\0\0"
    size = (12 + len(comment)).to_bytes(4, "big")
    return coded[: tile + 6] + size + coded[tile + 10 : tile + 12] + 2 * comment + coded[tile + 12 :]


CODESTREAMS = {
    "a hierarchy's size before the frame's": (".4.70", b"\xff\xd8" + frame(60_000, 60_000, 0xDE) + HONEST),
    "a byte before the tables": (".4.70", b"\xff\xd8\0" + TABLE + LARGE + HONEST),
    "a byte before the frame": (".4.50", b"\xff\xd8" + TABLE + b"\0" + LARGE + HONEST),
    "TEM before the tables": (".4.70", b"\xff\xd8\xff\x01" + TABLE + LARGE + HONEST),
    "RST before the frame": (".4.50", b"\xff\xd8\xff\xd0" + LARGE + HONEST),
    "two frames": (".4.70", b"\xff\xd8" + frame(40, 30) + LARGE + HONEST),
    "two frames, the large one first": (".4.50", b"\xff\xd8" + LARGE + HONEST),
    "a second frame after the scan": (".4.57", jpeg()[:-2] + LARGE + b"\xff\xd9"),
    "a second start": (".4.50", b"\xff\xd8\xff\xd8" + LARGE + HONEST),
    "a frame within what is skipped": (".4.80", b"\xff\xd8" + segment(0xFE, LARGE)),
    "a segment of no length": (".4.80", b"\xff\xd8\xff\xfe\0\0" + LARGE + HONEST),
    "an expansion": (".4.50", b"\xff\xd8" + segment(0xDF, b"\x11") + HONEST),
    "a height that is told later": (".4.50", jpeg()[:-2] + segment(0xDC, b"\xea\x60") + b"\xff\xd9"),
    "no start": (".4.50", LARGE + HONEST),
    "next to nothing": (".4.90", b"\0\0"),
    "JPEG 2000 in the boxes of a file": (".4.90", b"\0\0\0\x0cjP  \r\n\x87\n" + jpeg2000()),
    "JPEG 2000 of another size": (".4.90", jpeg2000((41, 30))),
    "JPEG 2000 of 64 components": (".4.90", jpeg2000()[:40] + struct.pack(">H", 64) + jpeg2000()[42:]),
    "JPEG 2000 whose first tile ends within its header": (".4.90", _ending_within_its_header()),
    "JPEG 2000 that begins twice": (".4.90", jpeg2000()[:45] + jpeg2000()[2:45] + jpeg2000()[45:]),
    "RLE that unpacks to a hundred times": (".5", struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 1000),
    "colours of a grey image": (".4.50", jpeg(mode="RGB")),
}


@pytest.mark.parametrize(("syntax", "coded"), CODESTREAMS.values(), ids=CODESTREAMS.keys())
def test_compressed_images_that_cannot_be_followed(syntax, coded, monkeypatch):
    begun = []
    content = dicom(syntax, coded)
    monkeypatch.setattr("pydicom.pixels.pixel_array", begun.append)
    with pytest.raises(UnreadableImage):
        decode(content)
    assert not begun, "it came to a decoder"


@pytest.mark.parametrize("precincts", [False, True])
def test_a_jpeg_2000_of_countless_parts(precincts):
    size = (2000, 2000)
    coded = jpeg2000(size)
    if precincts:
        # COD with precincts of one pixel at each of its six resolutions.
        at = coded.index(b"\xff\x52")
        length = int.from_bytes(coded[at + 2 : at + 4], "big")
        body = b"\x01" + coded[at + 5 : at + 2 + length] + bytes(6)
        coded = coded[:at] + b"\xff\x52" + struct.pack(">H", len(body) + 2) + body + coded[at + 2 + length :]
    else:
        coded = coded[:24] + struct.pack(">II", 16, 16) + coded[32:]
    with pytest.raises(UnreadableImage, match="packets" if precincts else "15,625 tiles"):
        decode(dicom(".4.90", coded, size))


HONEST_ONES = {
    "JPEG": (".4.50", jpeg(), {}),
    "JPEG extended": (".4.51", jpeg(), {}),
    "JPEG with fill bytes": (".4.50", jpeg()[:2] + b"\xff\xff\xff" + jpeg()[2:], {}),
    "JPEG of colours": (
        ".4.50",
        jpeg(mode="RGB"),
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0},
    ),
    "JPEG 2000": (".4.90", jpeg2000(), {}),
    "JPEG 2000 in tiles": (".4.91", jpeg2000(tile_size=(16, 16), irreversible=True), {}),
    "JPEG 2000 of 16 bits": (
        ".4.90",
        jpeg2000(mode="I;16"),
        {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "WindowCenter": 600, "WindowWidth": 400},
    ),
    "RLE": (".5", struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x07" * 9 + bytes((256 - 47, 7)), {}),
}


@pytest.mark.parametrize(("syntax", "coded", "changes"), HONEST_ONES.values(), ids=HONEST_ONES.keys())
def test_compressed_images_that_encoders_write(syntax, coded, changes):
    assert decode(dicom(syntax, coded, **changes)).pixels.shape == (30, 40)


def test_another_image_than_the_one_that_was_followed_is_not_decoded():
    # An extended offset table leads pydicom to the second fragment, which is 4000 x 3000.
    large = jpeg((4000, 3000))
    content = dicom(".4.50", jpeg())
    data = pydicom.dcmread(io.BytesIO(content))
    first = jpeg() + b"\0" * (len(jpeg()) % 2)
    data.PixelData = pydicom.encaps.encapsulate([first, large], has_bot=False)
    data.ExtendedOffsetTable = struct.pack("<Q", 8 + len(first))
    data.ExtendedOffsetTableLengths = struct.pack("<Q", len(large))
    buffer = io.BytesIO()
    data.save_as(buffer)
    try:
        assert decode(buffer.getvalue()).pixels.shape == (30, 40)
    except UnreadableImage as error:
        assert "4000" not in str(error)


def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sHI", group, number, kind, 0, len(value)) + value


WORK = {
    "scans": lambda: progressive(64, image_limits.SCANS),
    "comments": lambda: b"\xff\xd8" + segment(0xFE, b"") * 100_000 + HONEST,
    "junk": lambda: b"\xff\xd8" + bytes(200_000) + HONEST,
    "fill bytes": lambda: b"\xff\xd8" + b"\xff" * 200_000 + HONEST,
    "restart markers": lambda: b"\xff\xd8" + b"\xff\xd3" * 100_000 + HONEST,
    "a hierarchy": lambda: b"\xff\xd8" + frame(60_000, 60_000, 0xDE) + HONEST,
    "two frames": lambda: b"\xff\xd8" + frame(40, 30) + HONEST,
    "PNG chunks": lambda: png(8, 8, chunk(b"juNk") * 100_000, rows=bytes(16)),
    "PNG texts": lambda: png(8, 8, chunk(b"tEXt", b"a\0b") * 100_000, rows=bytes(16)),
    "PNG pixels in pieces of nothing": lambda: png(8, 8, chunk(b"IDAT") * 100_000, rows=bytes(16)),
    "TIFF pages in a circle": lambda: b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 256, 4, 1, 40, 8),
    "TIFF tags": lambda: b"MM\0*\0\0\0\x08" + struct.pack(">H", 60_000) + bytes(12 * 60_000 + 4),
    "TIFF strips": lambda: b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 273, 4, 6_000_000, 8, 0),
    "DICOM elements": lambda: inserted(dicom(".1", None), struct.pack("<HH2sH", 17, 5, b"LO", 0) * 200_000),
    "DICOM items": lambda: inserted(
        dicom(".1", None), struct.pack("<HH2sHI", 17, 16, b"SQ", 0, 0xFFFFFFFF) + (ITEM + bytes(4)) * 200_000
    ),
    "DICOM items within items": lambda: inserted(
        dicom(".1", None), (struct.pack("<HH2sHI", 17, 16, b"SQ", 0, 0xFFFFFFFF) + ITEM + b"\xff" * 4) * 50_000
    ),
    "DICOM character sets": lambda: inserted(dicom(".1", None), element(8, 5, b"UT", b"\\" * 5_000_000)),
    "DICOM windows": lambda: dicom(".1", None, WindowCenter="1", WindowWidth="5").replace(
        struct.pack("<HH2sH", 0x28, 0x1050, b"DS", 2) + b"1 ", element(0x28, 0x1050, b"UT", b"1\\" * 200_000)
    ),
    "DICOM fragments": lambda: dicom(".4.50", jpeg()).replace(ITEM, (ITEM + bytes(4)) * 100_000 + ITEM, 1),
    "DICOM samples": lambda: dicom(".1", None, SamplesPerPixel=3),
    "DICOM bits": lambda: dicom(".1", None, BitsAllocated=32, BitsStored=32, HighBit=31),
}


@pytest.mark.parametrize("made", WORK.values(), ids=WORK.keys())
def test_countless_parts(made):
    with pytest.raises(UnreadableImage):
        decode(made())


def saved(kind, **options):
    buffer = io.BytesIO()
    Image.new("L", (40, 30), 9).save(buffer, kind, **options)
    return buffer.getvalue()


def test_what_cameras_and_encoders_write_is_read():
    for content in (
        jpeg(progressive=True),
        jpeg(mode="RGB", progressive=True, restart_marker_blocks=1),
        jpeg()[:20] + b"\0" * 30 + jpeg()[20:],
        jpeg() + zlib.compress(np.random.default_rng(0).bytes(300_000)),
        png(40, 30, chunk(b"tEXt", b"a\0b") * 200, bits=8, rows=bytes(41 * 30)),
        progressive(64, 20),
        *(saved(kind) for kind in ("TIFF", "BMP")),
        saved("TIFF", big_tiff=True, compression="tiff_lzw"),
    ):
        assert decode(content).pixels.ndim == 2


def test_a_codestream_of_a_film_of_many_scans_is_followed_in_linear_time():
    # Two million bytes of what looks like markers, and is none.
    body = b"\xff\x00" * 500_000 + b"\xff\xd0" * 500_000
    content = jpeg()[:-2] + body + b"\xff\xd9"
    assert image_limits.codestream(content) == image_limits.Frame(40, 30, 1)


def test_a_small_dicom_never_takes_gigabytes():
    # In a process that may take one: what was allocated by these before is between three and seventeen.
    made = [dicom(syntax, coded).hex() for syntax, coded in CODESTREAMS.values()]
    code = (
        "import json, resource, sys\n"
        "import pydicom.pixels\n"
        "from chestxray.data.images.pixels import UnreadableImage\n"
        "from chestxray.data.images.reading import decode\n"
        "import numpy as np, PIL.Image\n"
        "had = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for text in json.load(sys.stdin):\n"
        "    try: decode(bytes.fromhex(text)); print('decoded')\n"
        "    except UnreadableImage: pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - had) // 1024)\n"
    )
    pytest.importorskip("resource")
    limited = (
        "import resource; used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))\n"
    )
    if Path("/proc/self/statm").exists():
        code = limited + code
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(made), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-300:]
    assert int(done.stdout) < 100
