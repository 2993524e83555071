"""What a client sent: an image of a kind that is taken here, or a link, or a `RequestProblem`."""

from __future__ import annotations

import json

from chestxray.data.images.reading import is_dicom
from chestxray.serve.errors import RequestProblem

#: What a client may call its bytes -> the kind of image that they must then be (None: any).
CONTENT_TYPES: dict[str, str | None] = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "application/dicom": "DICOM",
    "application/octet-stream": None,
}
ALLOWED = "PNG, JPEG, DICOM"
LINK = "application/json"
#: A link has at most 2048 characters, each of which JSON may write as six.
LINK_BYTES = 16_384
#: A DICOM file may begin as a TIFF file does, see PS3.10 section 7.1; else with zeros.
_PREAMBLES = (b"II*\0", b"MM\0*", b"\0\0\0\0")


def check_type(content_type: str | None, *, links: bool = False) -> None:
    """Raises `RequestProblem` (415) unless `content_type` is one of `CONTENT_TYPES`. `links`: whether the
    message offers those too.
    """
    if content_type not in CONTENT_TYPES:
        message = f"The Content-Type must be one of {', '.join(CONTENT_TYPES)}, and the body one image"
        raise RequestProblem(415, "content_type", f"{message}; or {LINK}, and a link." if links else f"{message}.")


def link(body: bytes) -> str:
    """The web address in a request's `body`, ``{"url": "https://..."}``.

    Raises:
        RequestProblem: it is too long (413), no JSON or one that is nested deeply (400), or without a link (422).
    """
    if len(body) > LINK_BYTES:
        raise RequestProblem(413, "too_large", f"A body with a link may have {LINK_BYTES:,} bytes.")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestProblem(400, "json", "The body is no JSON that can be read.") from error
    url = found.get("url") if isinstance(found, dict) else None
    if not isinstance(url, str):
        raise RequestProblem(422, "no_link", 'The body must be {"url": "https://..."}.')
    return url


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


def _kind(content: bytes) -> str | None:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    # A program in the preamble makes a file that is both DICOM and runs: CVE-2019-11687.
    if is_dicom(content) and content.startswith(_PREAMBLES):
        return "DICOM"
    return None
