"""Models behind a web page and a JSON interface: Flask on waitress, the extra ``serve``.

settings -> models -> answering (uploads, links, pictures) -> app -> server
"""

from __future__ import annotations
