"""What is said where a command is stopped that goes on when it is given again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@contextmanager
def repeatable() -> Iterator[None]:
    """Where Ctrl-C stops the block, print the command to go on with."""
    try:
        yield
    except KeyboardInterrupt:
        given = [argument for argument in sys.argv[1:] if argument != "--overwrite"]
        again = shlex.join([Path(sys.argv[0]).name, *given])
        click.echo(f"Go on with all of it: {again}", err=True)
        raise
