"""The command line `chestxray`. The module of a command is imported when the command is called."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from typing import Any

import click

from chestxray._version import VERSION
from chestxray.errors import ChestXrayError, InputError, missing_package

#: Error numbers of the system that only an invalid file name causes.
_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
#: Commands with their one-line help, which is shown without importing the commands.
COMMANDS = {
    "plan": "How many patients a test needs, before it is collected.",
    "run": "Train, evaluate, explain and report one model.",
    "evaluate": "Test a finished run on other data, or evaluate it anew.",
    "predict": "Answers of a finished run for image files and folders.",
    "export": "Write a finished run as ONNX, LiteRT, SavedModel or Keras.",
    "serve": "Put finished runs or exported models behind a web page.",
    "compare": "Compare finished runs, or models to train, by paired tests.",
    "ensemble": "Average the probabilities of several runs.",
    "leakage": "Measure what a leaky split is worth.",
    "recipes": "List the recipes of published systems, or print one.",
    "models": "List the architectures that are installed.",
    "data": "List, show, audit, prepare and export data sets.",
    "plugin": "Check a plugin, or begin a new one.",
    "cache": "Show or clear what is kept to be used again.",
}


class Lazy(click.Group):
    """A group whose commands are modules of `chestxray.cli`, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order in which they are usually used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"chestxray.cli.{cmd_name}").command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a package that it needs and that an extra installs is a `MissingPackageError`."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if (missing := missing_package(error, f"`chestxray {ctx.invoked_subcommand}`")) is None:
                raise
            raise missing from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from `COMMANDS`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="chestxray")
@click.option("--quiet", is_flag=True, help="Print results and errors alone.")
def group(quiet: bool) -> None:
    """Train, compare, explain and serve chest radiograph classifiers, honestly.

    Research use only. Not a medical device; not for diagnosis.

    To get started: chestxray run --model inceptionv3
    """
    _speak(quiet)


def main() -> None:
    """Run the command line. A user error prints one line; a defect of chestxray keeps its traceback."""
    try:
        result: Any = group(standalone_mode=False)
    except ChestXrayError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        # click raises Abort both for Ctrl-C and for a file that ends too early.
        if isinstance(error.__cause__, EOFError):
            raise error.__cause__ from None
        click.echo("Stopped by Ctrl-C.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the output has closed it (`| head`); this keeps Python from reporting that at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A file name from the user, wherever it is first used; any other OSError is a defect of chestxray.
        if error.errno not in _NAMES:
            raise
        click.echo(f"Error: {_shortened(error.filename)} cannot be reached: {error.strerror}.", err=True)
        sys.exit(InputError.exit_code)
    sys.exit(result if isinstance(result, int) else 0)


def _shortened(name: object) -> str:
    shortened = ascii(str(name))
    return shortened if len(shortened) <= 100 else f"{shortened[:97]}..."


def _speak(quiet: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("chestxray")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
