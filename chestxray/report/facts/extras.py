"""Reads JSON contents that only some runs have; missing or malformed parts read as empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chestxray.runs.run_folder import Run


def mapping(content: Run | Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the part called `name`, of a run the extra file; empty if it is missing or not a mapping."""
    found = (content.extras if isinstance(content, Run) else content).get(name)
    return found if isinstance(found, Mapping) else {}


def listing(content: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the mappings in the list called `name`; empty if it is missing or not a list."""
    found = content.get(name)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []
