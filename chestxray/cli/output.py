"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def quoted(figure: Mapping[str, float | None]) -> str:
    """A figure with its interval, as it is quoted; ``-`` where it cannot be had."""
    if figure["value"] is None:
        return "-"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def plain(text: str) -> str:
    """Text of strangers for the terminal: signs that would steer it are escaped; lines are kept."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, error: bool = False) -> None:
    """Print `rows` under `columns`, or on standard ``error``; columns of numbers stand to the right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    found = Table(show_edge=False)
    for i, name in enumerate(columns):
        number = i > 0 and all(row[i][:1].isdigit() or row[i][:1] == "-" for row in rows)
        found.add_column(escape(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        found.add_row(*(escape(plain(text)) for text in row))
    # Wide enough for whole names also where there is no terminal to ask for its width.
    console = Console(highlight=False, stderr=error)
    console.width = max(console.width, 120)
    console.print(found)
