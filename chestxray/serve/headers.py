"""Security headers of the responses: Content-Security-Policy and others.

flask-talisman is not used: it redirects to HTTPS and sets cookie options by default, has no Cross-Origin-*-Policy for
resources, and the policy of a model card is computed from its content; what would be left of it is this dictionary.
"""

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
    """Return the Content-Security-Policy with `changes` by directive, ``_`` standing for ``-``."""
    directives = _POLICY | {name.replace("_", "-"): value for name, value in changes.items()}
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def card_policy(html: str) -> str:
    """Return the policy of a model card, an HTML file with an inline style sheet, which is allowed by its hash.

    A card may come from someone else: it may run no script, load nothing and not navigate (``sandbox``).
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
