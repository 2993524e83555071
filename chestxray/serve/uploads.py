"""Checks the body of a request: an image of an accepted format, or a link."""

from __future__ import annotations

import json

from chestxray.data.images.reading import is_dicom
from chestxray.serve.errors import RequestProblem

#: Accepted Content-Type -> format that the image must have (None: any).
CONTENT_TYPES: dict[str, str | None] = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "application/dicom": "DICOM",
    "application/octet-stream": None,
}
ALLOWED = "PNG, JPEG, DICOM"
LINK = "application/json"
#: Most bytes of a body with a link: 2048 characters, each up to six bytes in JSON.
LINK_BYTES = 16_384
#: Preambles of DICOM files: those of TIFF files, see PS3.10 section 7.1, or zeros.
_PREAMBLES = (b"II*\0", b"MM\0*", b"\0\0\0\0")


def check_type(content_type: str | None, *, links: bool = False) -> None:
    """Raise `RequestProblem` (415) unless `content_type` is one of `CONTENT_TYPES`. `links`: whether the message
    mentions links.
    """
    if content_type not in CONTENT_TYPES:
        message = f"The Content-Type must be one of {', '.join(CONTENT_TYPES)}, and the body one image"
        raise RequestProblem(415, "content_type", f"{message}; or {LINK}, and a link." if links else f"{message}.")


def link(body: bytes) -> str:
    """Return the URL in a request's `body`, ``{"url": "https://..."}``.

    Raises:
        RequestProblem: the body is too long (413), is not JSON or is nested too deeply (400), or has no link (422).
    """
    if len(body) > LINK_BYTES:
        raise RequestProblem(413, "too_large", f"A body with a link may have {LINK_BYTES:,} bytes.")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestProblem(400, "json", "The body is not valid JSON.") from error
    url = found.get("url") if isinstance(found, dict) else None
    if not isinstance(url, str):
        raise RequestProblem(422, "no_link", 'The body must be {"url": "https://..."}.')
    return url


def check_content(content: bytes, content_type: str = "application/octet-stream") -> str:
    """Return the format of the image in `content`, by its first bytes.

    Raises:
        RequestProblem: it is empty (422), has none of the formats `ALLOWED`, or not that of `content_type` (415).
    """
    if not content:
        raise RequestProblem(422, "empty", "The file is empty.")
    kind = _kind(content)
    if kind is None:
        raise RequestProblem(415, "not_an_image", f"This is not an image of an accepted format: {ALLOWED}.")
    declared = CONTENT_TYPES[content_type]
    if declared not in (None, kind):
        raise RequestProblem(415, "mismatch", f"The Content-Type says {declared}, but this is {kind}.")
    return kind


def _kind(content: bytes) -> str | None:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    # A program in the preamble makes a DICOM file executable: CVE-2019-11687.
    if is_dicom(content) and content.startswith(_PREAMBLES):
        return "DICOM"
    return None
