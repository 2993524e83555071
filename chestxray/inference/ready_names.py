"""How a ready model is named, ``PLUGIN:WEIGHTS``: known before anything else of it is imported."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"[A-Za-z][\w.-]+(:[\w.-]+){1,2}")


def is_name(text: str | Path) -> bool:
    """Return whether `text` is written as the name of a ready model, and is no path of something that exists.

    >>> is_name("torchxrayvision:densenet121-res224-all"), is_name("runs/x"), is_name("C:/runs")
    (True, False, False)
    """
    return _NAME.fullmatch(str(text)) is not None and not Path(text).exists()
