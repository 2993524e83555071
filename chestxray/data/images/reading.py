"""Reading an image file as grey uint8 pixels. The header is checked before memory for pixels is allocated.

PNG, JPEG, TIFF and BMP are read here, with 16-bit colour by `chestxray.data.images.deep_colour`; DICOM is read by
`chestxray.data.images.dicom`, which is imported at the first such file.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from chestxray.data.images import deep_colour, image_limits
from chestxray.data.images.pixels import (
    FILTER,
    MAX_PIXELS,
    ORIENTATION,
    Box,
    Fit,
    UnreadableImage,
    check_size,
    corners,
    fitted,
    scaled_to_uint8,
    to_grey,
)
from chestxray.storage.files import content as content_of

#: Suffixes of the files that are read from a folder of images, in lower case.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"})
#: Suffixes of images in unsupported formats: a search reports such files instead of ignoring them.
UNREAD_SUFFIXES = frozenset(
    {".gif", ".webp", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jxl", ".pgm", ".ppm", ".pnm", ".tga", ".psd",
     ".svg", ".nii", ".nrrd", ".mha", ".mhd", ".npy"}
)  # fmt: skip
#: Maximum number of bytes in a file besides its pixels.
_BESIDE_PIXELS = 64_000_000
_FORMATS = tuple(
    plugin.format
    for plugin in (
        PngImagePlugin.PngImageFile,
        JpegImagePlugin.JpegImageFile,
        TiffImagePlugin.TiffImageFile,
        BmpImagePlugin.BmpImageFile,
    )
)
#: Exceptions that Pillow's decoders raise for truncated, inconsistent or corrupt files.
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError,
    OverflowError, MemoryError, ZeroDivisionError, AssertionError, struct.error, zlib.error,
)  # fmt: skip
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TURNED = (5, 6, 7, 8)
#: MPO: a JPEG followed by previews.
_JPEG_KINDS = ("JPEG", "MPO")
_SCAN = 0xDA
#: Markers of JPEG segments that may precede the first scan, and those of comments and application data.
_SEGMENTS = frozenset({*range(0xC0, 0xD0), *range(0xDB, 0xFF)})
_NOTES = frozenset({*range(0xE0, 0xF0), 0xFE})


@dataclass(frozen=True)
class Radiograph:
    """A decoded image: ``pixels``, grey uint8 (height, width), and properties of the file.

    ``width`` and ``height`` in pixels are those of the file, even if ``pixels`` is smaller.
    ``file_hash`` is the hash of its bytes. ``pixel_hash`` does not depend on the requested size: it
    is the hash of the grey pixels at full size or, for a JPEG, of the compressed image, since a JPEG
    is rarely decoded at full size and libraries decode it to different pixels. Equal hashes mean
    equal pixels; a JPEG and a PNG made from it have different hashes.
    """

    pixels: np.ndarray
    width: int
    height: int
    mode: str
    format: str
    file_hash: str
    pixel_hash: str


def read(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    fit: Fit = "stretch",
    max_pixels: int = MAX_PIXELS,
    box: Box | None = None,
) -> Radiograph:
    """Read an image file as grey pixels, of which `box` alone is kept, fitted to `size` (height, width) in pixels if
    given.

    16-bit and floating-point images are scaled by their own range, never clipped. Transparent pixels
    are blended with black. EXIF orientation is applied. JPEG files much larger than `size` are decoded
    at a half, quarter or eighth of their size (`box` never below `size`), which the JPEG format allows. Of
    colour JPEG files, the stored luma is read. DICOM files (the extra ``dicom``) are converted for
    display as their header says; their other elements are not passed on.

    Raises:
        UnreadableImage: no such file, a pipe or device, a file of more than 64 MB and eight bytes for
            each of `max_pixels`, not an image, truncated, more than `max_pixels` pixels, several pages
            or frames, 16-bit colour in planes, as CMYK or premultiplied.
    """
    try:
        content = content_of(path, 8 * max_pixels + _BESIDE_PIXELS)
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    return decode(content, size=size, fit=fit, max_pixels=max_pixels, box=box)


def decode(
    content: bytes,
    *,
    size: tuple[int, int] | None = None,
    fit: Fit = "stretch",
    max_pixels: int = MAX_PIXELS,
    box: Box | None = None,
) -> Radiograph:
    """Read an image from a file's bytes. Arguments and errors as for `read`."""
    if not content:
        raise UnreadableImage("the file is empty")
    if is_dicom(content):
        from chestxray.data.images import dicom

        values, mode = dicom.grey(content, max_pixels)
        grey = Image.fromarray(values)
        width, height, kind = grey.width, grey.height, "DICOM"
        pixel_hash = _pixel_hash(grey)
    else:
        with _open(content, max_pixels) as image:
            width, height, kind = image.width, image.height, image.format or ""
            mode = f"{image.mode};16" if deep_colour.is_deep(image) else image.mode
            grey = _load(image, size if size is None or box is None else _whole(size, box))
            pixel_hash = _digest(*_compressed(content, image, mode)) if kind in _JPEG_KINDS else _pixel_hash(grey)
    if box is not None:
        grey = grey.crop(corners(box, grey.width, grey.height))
    return Radiograph(
        pixels=np.asarray(fitted(grey, size, fit) if size else grey),
        width=width,
        height=height,
        mode=mode,
        format=kind,
        file_hash=_digest(content),
        pixel_hash=pixel_hash,
    )


def is_dicom(content: bytes) -> bool:
    """Return whether a file's bytes are read as DICOM. A DICOM file may begin as a TIFF (PS3.10 section 7.1); a
    file that begins as PNG or JPEG is not DICOM, whatever follows its 128th byte.
    """
    return content[128:132] == b"DICM" and not content.startswith((_PNG, _JPEG))


def _open(content: bytes, max_pixels: int) -> ImageFile.ImageFile:
    with warnings.catch_warnings():
        # Pillow warns about unusual tags.
        warnings.simplefilter("ignore")
        try:
            image_limits.check(content)
            image = _recognised(content)
            # An MPO is a JPEG followed by previews, which count as pages.
            pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        except image_limits.Refused as error:
            raise UnreadableImage(str(error)) from error
        except _BROKEN as error:
            if content.startswith((_PNG, _JPEG)):
                kind = "PNG" if content.startswith(_PNG) else "JPEG"
                raise UnreadableImage(f"{kind} with a damaged header") from error
            allowed = ", ".join((*_FORMATS, "DICOM"))
            raise UnreadableImage(f"not an image in a known format ({allowed})") from error
    check_size(image.width, image.height, max_pixels)
    if pages > 1:
        raise UnreadableImage(f"{image.format} with {pages} pages or frames; which one is the film is not known")
    return image


def _recognised(content: bytes) -> ImageFile.ImageFile:
    """Return the image with its header read. `Image.open` is not used: it has a pixel limit for the whole process."""
    for kind in _FORMATS:
        opener, accepts = Image.OPEN[kind]
        if accepts is None or accepts(content[:16]) is True:
            return opener(io.BytesIO(content), "")
    raise SyntaxError("no known format")


def _load(image: ImageFile.ImageFile, size: tuple[int, int] | None) -> Image.Image:
    """Return the pixels, grey and upright, of an image whose header has been read."""
    kind = image.format
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if kind in _JPEG_KINDS:
                image.draft("L", _least(image, size))
            if deep_colour.is_deep(image):
                return Image.fromarray(scaled_to_uint8(deep_colour.brightness(image)))
            image.load()
            return to_grey(image)
        except _BROKEN as error:
            if isinstance(error, UnreadableImage):
                raise
            raise UnreadableImage(f"{kind} cannot be decoded: {error}") from error


def _least(image: Image.Image, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the smallest (width, height) at which a JPEG may be decoded, before EXIF orientation is applied."""
    if size is None:
        return image.size
    height, width = size
    turned = image.getexif().get(ORIENTATION) in _TURNED
    return (height, width) if turned else (width, height)


def _whole(size: tuple[int, int], box: Box) -> tuple[int, int]:
    """Return the (height, width) of a whole image of which `box` has `size`."""
    return math.ceil(size[0] / (box[3] - box[1])), math.ceil(size[1] / (box[2] - box[0]))


def preprocessing(size: tuple[int, int], fit: Fit) -> dict[str, object]:
    """Return a description of how `read` processes an image, for exported files that are used without chestxray."""
    height, width = size
    calls = {
        "stretch": f"image.resize(({width}, {height}), filter)",
        "pad": f"ImageOps.pad(image, ({width}, {height}), method=filter, color=0)",
        "crop": f"ImageOps.fit(image, ({width}, {height}), method=filter)",
    }
    return {
        "order": ["jpeg", "orientation", "grey", "depth", "resize"],
        "jpeg": f"decoded by Pillow after image.draft('L', ({width}, {height})): luma alone, scaled down by 2, 4 or 8 "
        "where both sides stay at least as long",
        "orientation": "that of the EXIF tag, applied",
        "grey": "Pillow's convert('L'): 0.299 R + 0.587 G + 0.114 B; transparency laid over black first",
        "depth": "8 bits as they are; 16 bits and floating point: least value to 0, greatest to 255, rounded",
        "resize": {
            "fit": fit,
            "filter": FILTER.name.lower(),
            "antialias": True,
            "pillow": calls[fit].replace("filter", f"Image.Resampling.{FILTER.name}"),
        },
        "input": f"uint8 (n, {height}, {width}, 1), 0..255, neither scaled nor standardised",
    }


def _pixel_hash(grey: Image.Image) -> str:
    return _digest(f"{grey.width}x{grey.height}:".encode(), grey.tobytes())


def _compressed(content: bytes, image: Image.Image, mode: str) -> list[bytes | memoryview]:
    """Return the parts of a JPEG file that determine its grey pixels: its tables and compressed data, without
    comments and application data, and its EXIF orientation.
    """
    # These two segments determine how colours are decoded.
    colour = "" if mode == "L" else f"{'jfif' in image.info}:{image.info.get('adobe_transform')}"
    kept: list[bytes | memoryview] = [f"jpeg:{image.getexif().get(ORIENTATION, 1)}:{colour}:".encode()]
    # Slices of a view are not copies: large files would be copied twice.
    view, place = memoryview(content), 2
    while content[place + 1] != _SCAN:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if content[place] != 0xFF or marker not in _SEGMENTS or place + length + 4 > len(content):
            return [content]  # an unusual structure: the whole file is hashed
        if marker not in _NOTES:
            kept.append(view[place : place + 2 + length])
        place += 2 + length
    return [*kept, view[place:]]


def _digest(*parts: bytes | memoryview) -> str:
    """Return a 128-bit hash in hexadecimal digits. It is not cryptographic, and takes a hundredth of the time of
    such a hash, which took an eighth of the decoding time.
    """
    found = xxhash.xxh3_128()
    for part in parts:
        found.update(part)
    return found.hexdigest()
