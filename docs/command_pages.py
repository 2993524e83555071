"""A command of click as Markdown: its description, usage and options, as ``--help`` has them."""

import inspect
import re
from collections.abc import Iterator

import click


def page(command: click.Command, name: str) -> str:
    """The Markdown below the title of the page of `command`, which is called by `name` (``chestxray run``)."""
    return "\n\n".join(_sections(command, click.Context(command, info_name=name), 2)) + "\n"


def _sections(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield from _description(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            inner = click.Context(below, info_name=name, parent=context)
            yield f"{'#' * level} {inner.command_path}"
            yield from _sections(below, inner, level + 1)
        return
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```"
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    yield from (f"`{name}`\n:   {_escaped(help)}" for name, help in records)


def _description(command: click.Command) -> Iterator[str]:
    """The paragraphs of the docstring; one that begins with a backspace keeps its lines, and is of commands."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        if paragraph.lstrip().startswith("\b"):
            lines = inspect.cleandoc(paragraph.lstrip()[1:].strip("\n"))
            yield f"```sh\n{lines}\n```"
        else:
            yield _escaped(" ".join(paragraph.split()))


def _escaped(text: str) -> str:
    """`text` with what Markdown would read as markup escaped, but for code in backticks."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([\\*_\[\]])", r"\\\1", piece.replace("<", "&lt;"))
        for piece in pieces
    )
