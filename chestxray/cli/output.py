"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from chestxray.evaluation.figure_format import FigureFields, with_interval


def quoted(figure: FigureFields) -> str:
    """Return a figure with its interval for a table's cell; ``-`` where it cannot be computed."""
    return with_interval(figure, absent="-")


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
