"""Reading of JSON files that only some runs have, whatever of them is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chestxray.runs.run_folder import Run


def mapping(content: Run | Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The part of that name, empty where it is missing or no mapping; of a run, an extra file."""
    found = (content.extras if isinstance(content, Run) else content).get(name)
    return found if isinstance(found, Mapping) else {}


def listing(content: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The mappings in the list of that name."""
    found = content.get(name)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []
