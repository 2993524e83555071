"""Command line options generated from the fields of `Recipe`, which define their defaults."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

import click

from chestxray.recipe import DEMONSTRATION, Recipe

_Command = Callable[..., Any]


def recipe_options(command: _Command) -> _Command:
    """Add an option for every field of `Recipe` and return the command; options not given are passed as None or ()."""
    hints = typing.get_type_hints(Recipe)
    for field in reversed(dataclasses.fields(Recipe)):
        command = _option(field, hints[field.name])(command)
    help_text = "A recipe of `chestxray recipes`, by name, or a TOML file; options override it, '' empties a list."
    return click.option("--recipe", "recipe_name", metavar="NAME|FILE", help=help_text)(command)


def some_options(*names: str) -> Callable[[_Command], _Command]:
    """Return a decorator that adds options for these fields of `Recipe` only; options not given are None or ()."""

    def add(command: _Command) -> _Command:
        hints = typing.get_type_hints(Recipe)
        for field in reversed(dataclasses.fields(Recipe)):
            if field.name in names:
                command = _option(field, hints[field.name])(command)
        return command

    return add


def execution_options(command: _Command) -> _Command:
    """Add the options that choose where work is done that splits into parts; None where they are not given."""
    for option in (
        click.option(
            "--part-memory",
            type=float,
            metavar="GB",
            help="Free memory that each part waits for [default: 4; 1 to decode].",
        ),
        click.option("--workers", type=int, help="Parts at a time [default: as many as devices and memory allow]."),
        click.option(
            "--executor",
            metavar="local|ray|ray:HOST:PORT|ray://HOST:PORT",
            help="Do each part in a process of its own, several at a time: on this machine, or on the nodes of a Ray "
            "cluster [default: one after the other].",
        ),
    ):
        command = option(command)
    return command


def recipe_from(recipe_name: str | None, given: dict[str, Any]) -> tuple[Recipe, bool]:
    """Return the recipe of a command line, and whether it is the demonstration because no data were given.

    Raises:
        InputError: see `Recipe` and `Recipe.read`.
    """
    changes = {name: value for name, value in given.items() if value is not None and value != ()}
    # '' on the command line empties a list of the recipe, since leaving the option out keeps the list.
    changes = {name: () if value == ("",) else value for name, value in changes.items()}
    demonstration = recipe_name is None and "data" not in changes
    name = DEMONSTRATION if demonstration else recipe_name
    base = Recipe() if name is None else Recipe.read(name)
    return base.replace(**changes), demonstration


def _option(field: dataclasses.Field[Any], hint: Any) -> Callable[[_Command], _Command]:
    name = field.name.replace("_", "-")
    text = field.metadata["help"]
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next(part for part in parts if part is not type(None))
    if kind is bool:
        default = "yes" if field.default else "no"
        return click.option(f"--{name}/--no-{name}", default=None, help=f"{text} [default: {default}]")
    if field.default not in (None, (), ""):
        text += f" [default: {field.default}]"
    if typing.get_origin(kind) is Literal:
        return click.option(f"--{name}", type=click.Choice(typing.get_args(kind)), help=text)
    if typing.get_origin(kind) is tuple and field.name != "image_size":
        return click.option(f"--{name}", multiple=True, help=text)
    return click.option(f"--{name}", type=kind if kind in (int, float) else str, help=text)
