"""Prints how to continue an interrupted command that can be resumed by repeating it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@contextmanager
def repeatable() -> Iterator[None]:
    """Print the command to continue with if Ctrl-C or SIGTERM stops the block."""
    try:
        yield
    except KeyboardInterrupt:
        given = [argument for argument in sys.argv[1:] if argument != "--overwrite"]
        again = shlex.join([Path(sys.argv[0]).name, *given])
        click.echo(f"To continue, run: {again}", err=True)
        raise
