"""The items of the reporting guidelines CLAIM 2024 and TRIPOD+AI, and the author's answers to them."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chestxray.errors import InputError, nearest

FILE = Path(__file__).with_name("reporting_items.toml")
#: The file in a run's folder in which an author answers items.
TEXTS = "card.toml"


@dataclass(frozen=True)
class Item:
    """An item of a guideline; ``reporting_items.toml`` explains the fields.

    ``claim``: number of the item of CLAIM whose answer by the author also answers this one, or ``""``.
    """

    number: str
    section: str
    title: str
    facts: tuple[str, ...] = ()
    author: str = ""
    lacking: str = ""
    drawn: bool = False
    claim: str = ""


@dataclass(frozen=True)
class Checklist:
    """A guideline: ``name`` as in ``card.toml``, ``title`` as on the card."""

    name: str
    title: str
    citation: str
    items: tuple[Item, ...]


@functools.cache
def checklists() -> tuple[Checklist, ...]:
    """Return the general items of a model card, CLAIM 2024 (Tejani et al. 2024) and TRIPOD+AI (Collins et al. 2024)."""
    content = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return tuple(
        Checklist(name, part["title"], part["citation"], tuple(_item(item) for item in part["items"]))
        for name, part in content.items()
    )


def _item(fields: Mapping[str, Any]) -> Item:
    known = {name: value for name, value in fields.items() if name not in ("facts", "as")}
    return Item(**known, facts=tuple(fields.get("facts", ())), claim=fields.get("as", ""))


def author_texts(folder: Path) -> dict[tuple[str, str], str]:
    """Return the author's texts in ``card.toml`` by (checklist, item number); empty if there is no such file.

    Raises:
        InputError: the file is not TOML, a checklist or item is unknown, or an answer is not a string.
    """
    path = folder / TEXTS
    if not path.is_file():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    known = {checklist.name: [item.number for item in checklist.items] for checklist in checklists()}
    texts = {}
    for name, answers in content.items():
        if name not in known or not isinstance(answers, dict):
            raise InputError(
                f"{path}: items must stand below a checklist.{nearest(name, known)} "
                f"Allowed: {', '.join(f'[{k}]' for k in known)}. Received: {name!r}."
            )
        for number, text in answers.items():
            if number not in known[name]:
                raise InputError(
                    f"{path}: [{name}] has no item {number!r}.{nearest(number, known[name])} "
                    f"Allowed: {', '.join(known[name])}."
                )
            if not isinstance(text, str):
                raise InputError(f"{path}: item {number} of [{name}] must be a text in quotes. Received: {text!r}.")
            if text.strip():
                texts[name, number] = text.strip()
    return texts
