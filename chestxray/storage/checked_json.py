"""Small JSON files of the cache with their own checksum in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xxhash

from chestxray.storage.files import write_bytes


def write(path: Path, content: dict[str, Any]) -> None:
    """Write `content` and its checksum to `path` atomically. Raises as `files.write_bytes`."""
    write_bytes(path, dumped(content))


def read(path: Path) -> dict[str, Any] | None:
    """Return the content of a file, None if it is missing or not what was written."""
    try:
        return parsed(path.read_bytes())
    except OSError:
        return None


def dumped(content: dict[str, Any]) -> bytes:
    """Return the bytes of a file of `content`."""
    checksum = xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())
    return json.dumps({"content": content, "checksum": checksum}, indent=1).encode() + b"\n"


def parsed(written: bytes) -> dict[str, Any] | None:
    """Return the content of the bytes of a file, None if they are not what `dumped` gave."""
    try:
        content: dict[str, Any] = json.loads(written)["content"]
        return content if dumped(content) == written else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
