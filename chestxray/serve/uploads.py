"""Bytes of a stranger -> grey pixels, or a `RequestProblem`. Nothing is written to disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chestxray import images
from chestxray.images import Radiograph, TooManyPixels, UnreadableImage
from chestxray.serve.problems import RequestProblem

if TYPE_CHECKING:
    from chestxray.images import Fit

#: What a client may call its bytes -> the kind of image that they must then be (None: any).
CONTENT_TYPES: dict[str, str | None] = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "application/dicom": "DICOM",
    "application/octet-stream": None,
}
ALLOWED = "PNG, JPEG, DICOM"
#: A DICOM file may begin as a TIFF file does, see PS3.10 section 7.1; else with zeros.
_PREAMBLES = (b"II*\0", b"MM\0*", b"\0\0\0\0")


def check_type(content_type: str | None) -> None:
    """Raises `RequestProblem` (415) unless `content_type` is one of `CONTENT_TYPES`."""
    if content_type not in CONTENT_TYPES:
        raise RequestProblem(
            415, "content_type", f"The Content-Type must be one of {', '.join(CONTENT_TYPES)}, and the body one image."
        )


def check_content(content: bytes, content_type: str = "application/octet-stream") -> str:
    """The kind of image in `content`, by its first bytes.

    Raises:
        RequestProblem: it is empty (422), none of `ALLOWED`, or not what `content_type` says (415).
    """
    if not content:
        raise RequestProblem(422, "empty", "The file is empty.")
    kind = _kind(content)
    if kind is None:
        raise RequestProblem(415, "not_an_image", f"This is no image of a kind that can be read here: {ALLOWED}.")
    declared = CONTENT_TYPES[content_type]
    if declared not in (None, kind):
        raise RequestProblem(415, "mismatch", f"The Content-Type says {declared}, but this is {kind}.")
    return kind


def decode(content: bytes, size: tuple[int, int] | None, fit: Fit, max_pixels: int) -> Radiograph:
    """As `images.decode`.

    Raises:
        RequestProblem: more than `max_pixels` (413), or the image cannot be read (422).
    """
    try:
        return images.decode(content, size=size, fit=fit, max_pixels=max_pixels)
    except TooManyPixels as error:
        raise RequestProblem(413, "too_many_pixels", f"The image cannot be read: {error}.") from error
    except UnreadableImage as error:
        raise RequestProblem(422, "unreadable", f"The image cannot be read: {error}.") from error


def _kind(content: bytes) -> str | None:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    # A program in the preamble makes a file that is both DICOM and runs: CVE-2019-11687.
    if content[128:132] == b"DICM" and content.startswith(_PREAMBLES):
        return "DICOM"
    return None
