"""Rows of a benchmark: the plain way and ours, measured in one run, their ratio and the bar it should pass."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """``plain`` and ``ours`` in ``unit``; a unit that ends in ``/s`` is better when larger, others
    (``s``) when smaller. ``bar`` is the least ratio that we set ourselves, None where there is none.
    """

    name: str
    plain: float
    ours: float
    unit: str
    bar: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times better ours is than the plain way."""
        return self.ours / self.plain if self.unit.endswith("/s") else self.plain / self.ours

    @property
    def passed(self) -> bool | None:
        """Whether the bar is passed, None without a bar."""
        return None if self.bar is None else self.ratio >= self.bar


def show(rows: Iterable[Row]) -> None:
    """Print the table: name, plain, ours, ratio, bar."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False)
    table.add_column("benchmark", overflow="fold")
    for name in ("plain", "ours", "ratio", "bar", ""):
        table.add_column(name, justify="right")
    for row in rows:
        verdict = {None: "", True: "passed", False: "MISSED"}[row.passed]
        bar = "" if row.bar is None else f"{row.bar:g}"
        name = f"{row.name} [dim]{row.note}[/dim]" if row.note else row.name
        table.add_row(
            name, f"{row.plain:,.4g} {row.unit}", f"{row.ours:,.4g} {row.unit}", f"{row.ratio:.2f}", bar, verdict
        )
    console = Console(highlight=False)
    console.width = max(console.width, 130)
    console.print(table)


def write(rows: Iterable[Row], path: Path) -> None:
    """Write the rows as JSON."""
    content = [dataclasses.asdict(row) | {"ratio": row.ratio, "passed": row.passed} for row in rows]
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> list[Row]:
    """What `write` wrote."""
    names = [field.name for field in dataclasses.fields(Row)]
    return [Row(**{name: item[name] for name in names}) for item in json.loads(path.read_text(encoding="utf-8"))]
