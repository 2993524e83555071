"""Removes the user's home folder and name from what is meant to be pasted into a bug report."""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path
from typing import Any


def without_user(facts: Any) -> Any:
    """Return `facts`, of JSON types, with the home folder as ``~`` and the user's name as ``USER`` in all texts."""
    home, name = _home(), _name()

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {cleaned(key): cleaned(item) for key, item in value.items()}
        if isinstance(value, list):
            return [cleaned(item) for item in value]
        return _shortened(value, home, name) if isinstance(value, str) else value

    return cleaned(facts)


def _shortened(text: str, home: str, name: str) -> str:
    if home:
        text = re.sub(rf"{re.escape(home)}(?=$|[/\\\s:;,'\")])", "~", text)
    if not name:
        return text
    # As a part of a path alone: a short name is a part of many words.
    return re.sub(rf"(?<=[/\\]){re.escape(name)}(?=$|[/\\\s:;,'\"])", "USER", text)


def _home() -> str:
    home = str(Path(os.path.expanduser("~"))).rstrip("/\\")  # noqa: PTH111 - Path.home raises where there is none
    return home if len(home) > 1 and home != "~" else ""


def _name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without an entry, as in a container with --user
        return ""
