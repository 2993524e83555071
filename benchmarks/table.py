"""Rows of a benchmark: baseline and chestxray measured in the same run, their ratio and its target."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import Paired


@dataclass(frozen=True)
class Row:
    """One comparison: the baseline (``plain``) and chestxray (``ours``) in ``unit``.

    A unit that ends in ``/s`` is better when larger, others (``s``) when smaller. ``bar`` is the target, the least
    acceptable ratio, or None. If the two alternated, ``paired`` is the median of the rounds' ratios, and
    ``processors`` that of processor time.
    """

    name: str
    plain: float
    ours: float
    unit: str
    bar: float | None = None
    note: str = ""
    paired: float | None = None
    processors: float | None = None

    @classmethod
    def of(cls, name: str, found: Paired, *, images: int = 0, bar: float | None = None, note: str = "") -> Row:
        """Return a row of two alternating ways: images per second for `images` images, or seconds."""
        plain, ours = ((images / way.clock if images else way.clock) for way in (found.plain, found.ours))
        unit = "images/s" if images else "s"
        return cls(name, plain, ours, unit, bar, note, found.clock, found.processors)

    @property
    def ratio(self) -> float:
        """How many times better chestxray is than the baseline."""
        if self.paired is not None:
            return self.paired
        return self.ours / self.plain if self.unit.endswith("/s") else self.plain / self.ours

    @property
    def passed(self) -> bool | None:
        """Whether the ratio reaches the target, None without a target."""
        return None if self.bar is None else self.ratio >= self.bar


def show(rows: Iterable[Row]) -> None:
    """Print the table: name, baseline, ours, ratio, ratio of processor time, target."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False)
    table.add_column("benchmark", overflow="fold")
    for name in ("plain", "ours", "ratio", "cpu", "bar", ""):
        table.add_column(name, justify="right")
    for row in rows:
        verdict = {None: "", True: "passed", False: "MISSED"}[row.passed]
        bar = "" if row.bar is None else f"{row.bar:g}"
        name = f"{row.name} [dim]{row.note}[/dim]" if row.note else row.name
        processors = "" if row.processors is None else f"{row.processors:.2f}"
        plain, ours = (f"{value:,.4g} {row.unit}" for value in (row.plain, row.ours))
        table.add_row(name, plain, ours, f"{row.ratio:.2f}", processors, bar, verdict)
    console = Console(highlight=False)
    console.width = max(console.width, 130)
    console.print(table)


def write(rows: Iterable[Row], path: Path) -> None:
    """Write the rows to `path` as JSON."""
    content = [dataclasses.asdict(row) | {"ratio": row.ratio, "passed": row.passed} for row in rows]
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> list[Row]:
    """Return the rows that `write` wrote to `path`."""
    names = [field.name for field in dataclasses.fields(Row)]
    return [Row(**{name: item[name] for name in names}) for item in json.loads(path.read_text(encoding="utf-8"))]
