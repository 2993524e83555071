"""Recipes: those that ship, changed as text and by their values."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import tomli_w

from chestxray import recipe_files
from chestxray.recipe import Recipe
from fuzz.mutation import mutated

_VALUES = (
    float("nan"), float("inf"), -1, 0, 2**63, 10**40, "", "x" * 10_000, "NaN", [], [[]], [1, "a"], {}, {"a": 1}, True,
    "../../etc", "\0", "model", 0.5,
)  # fmt: skip


def prepare(folder: Path, _: contextlib.ExitStack) -> Callable[[random.Random], None]:
    """A case that reads one changed recipe, and writes what it read."""
    texts = [path.read_bytes() for path in recipe_files.shipped().values()]
    whole = Recipe().to_toml().encode()
    fields = list(Recipe.__dataclass_fields__)
    path = folder / "a.toml"

    def case(rng: random.Random) -> None:
        if rng.random() < 0.5:
            content = mutated(rng, rng.choice((whole, rng.choice(texts))), rng.choice(texts))
        else:
            chosen = {rng.choice(fields): rng.choice(_VALUES) for _ in range(rng.choice((1, 1, 3)))}
            content = tomli_w.dumps(chosen).encode()
        path.write_bytes(content)
        recipe_files.read(path)
        Recipe.read(path).to_toml()

    return case
