"""Headers that keep a browser from doing what the page does not need."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_STYLE = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL)


def policy(**changes: str) -> str:
    """The Content-Security-Policy; `changes` by directive, ``_`` for ``-``."""
    directives = _POLICY | {name.replace("_", "-"): value for name, value in changes.items()}
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def card_policy(html: str) -> str:
    """The policy of a model card, one file with its style sheet inside: that sheet alone, by its hash. A card may
    be a stranger's: it runs nothing, asks for nothing, and does not lead elsewhere by itself (``sandbox``).
    """
    return policy(
        script_src="'none'",
        connect_src="'none'",
        img_src="data:",
        style_src=" ".join(_hashes(_STYLE.findall(html))) or "'none'",
        sandbox="allow-popups",
    )


def _hashes(sheets: Iterable[str]) -> list[str]:
    digests = (hashlib.sha256(sheet.encode()).digest() for sheet in sheets)
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
