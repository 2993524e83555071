"""Models behind a web page and a JSON interface: Flask on waitress, the extra ``serve``.

settings -> loading -> prediction (uploads, url_fetch, data_uris) -> app -> server
"""

from __future__ import annotations
