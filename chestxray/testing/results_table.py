"""Formats the results of a suite as a table and as JSON."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from chestxray.testing.results import CheckResult

_COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def table(results: Sequence[CheckResult]) -> Table:
    """Return a table with one row per check: outcome, seconds, and why it failed or was skipped."""
    made = Table(show_edge=False)
    for column in ("check", "outcome", "seconds", "reason and hint"):
        made.add_column(column, justify="right" if column == "seconds" else "left", no_wrap=column != "reason and hint")
    for result in results:
        # Text, not markup: a reason may hold square brackets.
        reason = Text(result.reason or result.skipped_reason)
        if result.hint:
            reason.append(f"\n{result.hint}", style="italic")
        outcome = Text(result.outcome, style=_COLOURS[result.outcome])
        made.add_row(result.name, outcome, f"{result.seconds:.1f}", reason)
    return made


def summary(results: Sequence[CheckResult]) -> str:
    """Return the numbers of outcomes as ``14 passed, 1 failed, 1 skipped``."""
    outcomes = [result.outcome for result in results]
    counts = [(outcomes.count(name), name) for name in ("passed", "failed", "skipped")]
    return ", ".join(f"{count} {name}" for count, name in counts if count) or "no checks"


def plain(results: Sequence[CheckResult], width: int = 110) -> str:
    """Return the table as text without colours."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(table(results))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def failed(results: Sequence[CheckResult]) -> bool:
    """Return whether any check failed. A skipped check has not."""
    return any(result.outcome == "failed" for result in results)


def require_passed(results: list[CheckResult]) -> list[CheckResult]:
    """Return `results`. Raises AssertionError with the table if a check failed."""
    __tracebackhide__ = True  # pytest then shows the table, not this function
    if failed(results):
        raise AssertionError(f"{summary(results)}\n{plain(results)}")
    return results


def to_json(results: Sequence[CheckResult]) -> dict[str, Any]:
    """Return ``{"passed": bool, "checks": [{"name", "outcome", "seconds", "reason", "hint"}]}``."""
    rows = [
        {
            "name": result.name,
            "outcome": result.outcome,
            "seconds": result.seconds,
            "reason": result.reason or result.skipped_reason,
            "hint": result.hint,
        }
        for result in results
    ]
    return {"passed": not failed(results), "checks": rows}
