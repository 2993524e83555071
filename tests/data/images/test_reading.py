"""Files of every kind and in every state -> grey pixels, or a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from chestxray.data.images.pixels import UnreadableImage, fitted, scaled_to_uint8
from chestxray.data.images.reading import decode, read
from image_bytes import dicom, saved

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (18, 26), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8) * 2


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_grey_is_kept_bit_for_bit(kind):
    image = decode(saved(GREY, kind))
    assert (image.pixels == GREY).all()
    assert (image.width, image.height, image.mode, image.format) == (26, 18, "L", kind)


def test_the_same_pixels_have_the_same_hash_in_any_format():
    hashes = {decode(saved(GREY, kind)).pixel_hash for kind in ("PNG", "BMP", "TIFF")}
    hashes.add(decode(saved(Image.fromarray(GREY).convert("RGB"), "PNG")).pixel_hash)
    assert len(hashes) == 1
    assert len({decode(saved(GREY, kind)).file_hash for kind in ("PNG", "BMP")}) == 2
    # A row of pixels more and a column less would be the same bytes.
    assert decode(saved(GREY.reshape(26, 18), "PNG")).pixel_hash not in hashes


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_hash_does_not_depend_on_the_size_asked_for(kind, mode):
    film = Image.fromarray(SMOOTH).resize((640, 480)).convert(mode)
    content = saved(film, kind)
    sizes = (None, (480, 640), (224, 224), (64, 48), (8, 8))
    assert len({decode(content, size=size).pixel_hash for size in sizes}) == 1


def test_of_a_jpeg_the_compressed_image_is_hashed():
    film = Image.fromarray(SMOOTH)
    plain = decode(saved(film, "JPEG")).pixel_hash
    exif = Image.Exif()
    exif[0x010E] = "a description"
    noted = saved(film, "JPEG", exif=exif, comment=b"a comment", icc_profile=b"x" * 70_000)
    assert decode(noted).pixel_hash == plain
    exif[0x0112] = 3
    others = [saved(film, "JPEG", exif=exif), saved(film, "JPEG", quality=74), saved(film.rotate(180), "JPEG")]
    others += [saved(film.convert("RGB"), "JPEG"), saved(film.convert("CMYK"), "JPEG")]
    assert len({plain, *(decode(content).pixel_hash for content in others)}) == 6


def test_a_jpeg_laid_out_oddly_is_hashed_whole():
    content = saved(SMOOTH, "JPEG")
    filled = content[:2] + b"\xff" + content[2:]  # a fill byte before a marker is allowed
    assert (decode(filled).pixels == decode(content).pixels).all()
    assert decode(filled, size=(8, 8)).pixel_hash == decode(filled).pixel_hash
    assert decode(filled + b"more").pixel_hash != decode(filled).pixel_hash


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "CMYK"])
def test_other_modes_become_grey(mode):
    image = Image.fromarray(SMOOTH).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    found = decode(saved(image, kind)).pixels
    assert found.shape == SMOOTH.shape
    if mode == "1":
        assert set(np.unique(found)) == {0, 255}
    else:
        assert np.abs(found.astype(int) - SMOOTH).max() <= 2


def test_transparency_is_laid_over_black():
    pixels = np.full((4, 4, 4), 200, np.uint8)
    pixels[:2, :, 3] = 0
    found = decode(saved(pixels, "PNG")).pixels
    assert (found[:2] == 0).all()
    palette = Image.fromarray(SMOOTH).convert("P")
    assert decode(saved(palette, "PNG", transparency=0)).pixels[0, 0] == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_by_their_range(kind):
    film = np.linspace(100, 4000, 18 * 26).reshape(18, 26).astype(np.uint16)
    found = decode(saved(film, kind)).pixels
    assert (found.min(), found.max()) == (0, 255)
    assert (np.diff(found.ravel().astype(int)) >= 0).all()
    assert len(np.unique(found)) > 200


def test_tiff_in_which_white_is_zero_is_turned_round():
    film = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    content = saved(film, "TIFF", tiffinfo={262: 0})
    assert decode(content).pixels[0, 0] == 255


def test_floats_and_whole_numbers_of_32_bits_are_scaled():
    assert decode(saved(np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8), "TIFF")).pixels.max() == 255
    film = (np.arange(64, dtype=np.int32) + 2**24).reshape(8, 8)
    assert len(np.unique(decode(saved(film, "TIFF")).pixels)) == 64
    with pytest.raises(UnreadableImage, match="not a finite number"):
        decode(saved(np.full((4, 4), np.nan, np.float32), "TIFF"))
    assert (scaled_to_uint8(np.full((2, 2), 900, np.uint16)) == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :16] = 255
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
              6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1)}[orientation]  # fmt: skip
    content = saved(np.ascontiguousarray(turned), "JPEG", exif=exif, quality=100)
    assert np.abs(decode(content).pixels.astype(int) - upright).max() < 20
    # Also where the size asked for is not square, whichever way the file lies.
    assert np.abs(decode(content, size=(4, 8)).pixels[1, 1].astype(int) - 255) < 20


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_fit_makes_the_size(fit):
    white = Image.new("L", (40, 20), 255)
    found = np.asarray(fitted(white, (16, 16), fit))
    assert found.shape == (16, 16)
    assert (found[0] == (0 if fit == "pad" else 255)).all()
    assert (found[8] == 255).all()


def test_draft_mode_gives_nearly_what_whole_decoding_gives():
    film = np.asarray(Image.fromarray(SMOOTH).resize((1200, 900), Image.Resampling.BICUBIC))
    for image in (Image.fromarray(film), Image.fromarray(film).convert("RGB")):
        content = saved(image, "JPEG", quality=95)
        drafted = decode(content, size=(100, 120)).pixels.astype(int)
        with Image.open(io.BytesIO(content)) as whole:
            plain = np.asarray(whole.convert("L").resize((120, 100), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(drafted - plain).max() <= 3
        assert decode(content, size=(100, 120)).width == 1200


def bomb(width, height):
    """A small PNG whose header says that it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_the_header_is_looked_at_first():
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImage, match="40000x40000 is more pixels than the 100,000,000 allowed"):
        decode(bomb(40_000, 40_000))
    with pytest.raises(UnreadableImage, match="more pixels"):
        decode(saved(GREY, "PNG"), max_pixels=100)
    with pytest.raises(UnreadableImage):
        decode(bomb(2**31 - 1, 2**31 - 1))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert decode(saved(GREY, "PNG"), max_pixels=18 * 26).width == 26


def test_a_header_that_promises_more_than_there_is():
    with pytest.raises(UnreadableImage, match="PNG cannot be decoded"):
        decode(bomb(500, 500))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_half_a_file_is_no_image(kind):
    content = saved(GREY, kind)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(UnreadableImage):
            decode(content[: int(len(content) * share)])


def test_reasons(tmp_path):
    cases = {
        "text.png": (b"hello, I am a text", "not an image in a known format"),
        "empty.png": (b"", "the file is empty"),
        "page.tif": (
            saved(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
            "TIFF with 2 pages or frames",
        ),
        "picture.gif": (saved(GREY, "GIF"), "not an image in a known format"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableImage, match=reason):
            read(tmp_path / name)
    with pytest.raises(UnreadableImage, match="No such file"):
        read(tmp_path / "none.png")
    with pytest.raises(UnreadableImage, match="directory"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "DICOM"])
def test_no_bytes_whatever_raise_anything_else(kind):
    if kind == "DICOM":
        pytest.importorskip("pydicom", reason="the extra dicom is not installed")
        content = dicom(GREY)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        content = saved(SMOOTH, kind, **({"exif": exif} if kind != "BMP" else {}))
    rng = np.random.default_rng(1)
    for _ in range(150):
        spoilt = bytearray(content)
        for place in rng.integers(0, len(spoilt), rng.integers(1, 6)):
            spoilt[place] = rng.integers(0, 256)
        try:
            image = decode(bytes(spoilt), size=(8, 8))
        except UnreadableImage as error:
            assert str(error)
            assert "\n" not in str(error)
        else:
            assert image.pixels.shape == (8, 8)
            assert image.pixels.dtype == np.uint8


@pytest.mark.real_data
def test_figure1_of_many_sizes_and_modes(real_data):
    found = [read(path, size=(64, 64)) for path in sorted((real_data / "figure1-covid" / "images").iterdir())]
    assert len(found) == 55
    assert {image.mode for image in found} >= {"L", "RGB"}
    assert max(image.width for image in found) > 3000
