"""Prints tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from chestxray.evaluation.figure_format import FigureFields, with_interval


def quoted(figure: FigureFields) -> str:
    """Return a figure with its interval for a table cell; ``-`` if it could not be computed."""
    return with_interval(figure, absent="-")


def plain(text: str) -> str:
    """Return untrusted text with control characters escaped, except line breaks, for the terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, error: bool = False) -> None:
    """Print a table on standard output, or with `error` on standard error; columns of numbers are right-aligned."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    found = Table(show_edge=False)
    for i, name in enumerate(columns):
        number = i > 0 and all(row[i][:1].isdigit() or row[i][:1] == "-" for row in rows)
        found.add_column(escape(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        found.add_row(*(escape(plain(text)) for text in row))
    # Wide enough for whole names also if there is no terminal whose width is known.
    console = Console(highlight=False, stderr=error)
    console.width = max(console.width, 120)
    console.print(found)
