"""Recipes as files: those that ship with chestxray, by name, and the user's own, by path.

A file has the fields of `Recipe` as keys. ``models``, a list for `chestxray compare`, may replace
``model``. The comment at the start of the file describes the recipe.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from chestxray.errors import InputError, nearest
from chestxray.storage.files import ABSENT, content, refusal

RECIPES = Path(__file__).parent / "recipes"
#: The only key of a file that is not a field of `Recipe`.
MODELS = "models"
#: Maximum size of a recipe in bytes, a thousand times that of the recipes that ship with chestxray.
MOST = 1_000_000


def shipped() -> dict[str, Path]:
    """Return the files of the recipes that ship with chestxray by name, sorted."""
    return {file.stem: file for file in sorted(RECIPES.glob("*.toml"), key=lambda file: file.stem)}


def find(name_or_path: str | Path) -> Path:
    """Return the file of the shipped recipe of that name, or the path itself if it is a file.

    Raises:
        InputError: neither a shipped name nor a file.
    """
    known = shipped()
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    reason = refusal(Path(name_or_path))
    if reason and reason not in ABSENT:
        raise InputError(f"The recipe {name_or_path} cannot be reached: {reason}.")
    if reason or not Path(name_or_path).is_file():
        raise InputError(
            f"No recipe {str(name_or_path)!r}.{nearest(str(name_or_path), known)} Allowed: the "
            f"path of a TOML file, or one of {', '.join(known)}."
        )
    return Path(name_or_path)


def read(name_or_path: str | Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the fields that a recipe sets, unchecked, and its models if it lists several, else ``()``.

    Raises:
        InputError: no such recipe; not TOML; ``models`` that is not a list of at least two names, or
            is given together with ``model``.
    """
    path = find(name_or_path)
    try:
        values = tomllib.loads(content(path, MOST).decode("utf-8"))
    except OSError as error:
        raise InputError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except RecursionError as error:
        raise InputError(f"The recipe {path} is not valid TOML: it is nested too deep.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"The recipe {path} is not valid TOML: {error}") from error
    if MODELS not in values:
        return values, ()
    models = values.pop(MODELS)
    if not isinstance(models, list) or len(models) < 2 or not all(isinstance(name, str) for name in models):
        raise InputError(f"{MODELS} must be a list of two architectures or more. Received: {models!r}.")
    if "model" in values:
        raise InputError(f"The recipe {path} has both model and {MODELS}; one of them is allowed.")
    return values, tuple(models)


def comment(path: Path) -> str:
    """Return the comment at the start of a recipe, line by line without ``#``, or ``""`` if there is none."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)
