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
from chestxray.errors import ChestXrayError, InputError, Terminated, missing_package
from chestxray.models import interrupts
from chestxray.progress import json_lines

log = logging.getLogger("chestxray")

#: Error numbers of the system that only an invalid file name causes.
_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
#: Commands with their one-line help, which is shown without importing the commands.
COMMANDS = {
    "plan": "How many patients a test needs, before it is collected.",
    "run": "Train, evaluate, explain and report one model.",
    "evaluate": "Test a finished run on other data, or evaluate it anew.",
    "calibrate": "Calibrate a ready model, or a finished run, on other films.",
    "predict": "Answers of a finished run for image files and folders.",
    "explain": "Draw where in images the score of a class comes from.",
    "features": "Write the feature vectors of films for other tools.",
    "neighbours": "Find the films that a network takes for most alike.",
    "export": "Write a finished run as ONNX, LiteRT, SavedModel or Keras.",
    "serve": "Put finished runs or exported models behind a web page.",
    "compare": "Compare finished runs, or models to train, by paired tests.",
    "ensemble": "Average the probabilities of several runs.",
    "leakage": "Measure what a leaky split is worth.",
    "recipes": "List the recipes of published systems, or print one.",
    "models": "List the architectures that are installed.",
    "data": "List, show, audit, prepare and export data sets.",
    "plugin": "Check a plugin, or begin a new one.",
    "cache": "Show, verify, prune or clear what is kept to be used again.",
    "doctor": "Show what is installed, on what machine, and what is wrong.",
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
@click.option("--log-json", is_flag=True, help="Log to standard error as lines of JSON, progress too.")
def group(quiet: bool, log_json: bool) -> None:
    """Train, compare, explain and serve chest radiograph classifiers, honestly.

    Research use only. Not a medical device; not for diagnosis.

    To get started: chestxray run --model inceptionv3
    """
    if log_json:
        json_lines.speak(quiet)
    else:
        _speak(quiet)


def main() -> None:
    """Run the command line. A user error prints one line; a defect of chestxray keeps its traceback."""
    try:
        with interrupts.sigterm_heard():
            result: Any = group(standalone_mode=False)
    except ChestXrayError as error:
        _fail(str(error), error.exit_code)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if json_lines.speaking():
            _fail(error.format_message(), error.exit_code)
        else:
            error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        # click raises Abort both for Ctrl-C and for a file that ends too early.
        if isinstance(error.__cause__, EOFError):
            raise error.__cause__ from None
        terminated = isinstance(error, Terminated) or isinstance(error.__cause__, Terminated)
        code = 143 if terminated else 130
        _fail("Stopped by SIGTERM." if terminated else "Stopped by Ctrl-C.", code, prefix="")
        sys.exit(code)
    except BrokenPipeError:
        # The reader of the output has closed it (`| head`); this keeps Python from reporting that at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A file name from the user, wherever it is first used; any other OSError is a defect of chestxray.
        if error.errno not in _NAMES:
            _tell_defect()
            raise
        _fail(f"{_shortened(error.filename)} cannot be reached: {error.strerror}.", InputError.exit_code)
        sys.exit(InputError.exit_code)
    except Exception:
        _tell_defect()
        raise
    sys.exit(result if isinstance(result, int) else 0)


def _tell_defect() -> None:
    """With ``--log-json``, say what is being raised in a line of its form, and end."""
    if json_lines.speaking():
        log.critical("A defect of chestxray.", exc_info=True)
        sys.exit(1)


def _fail(message: str, code: int, prefix: str = "Error: ") -> None:
    """Say in a line on standard error why the command ends."""
    if json_lines.speaking():
        log.error("%s", message, extra={"fields": {"exit_code": code}})
    else:
        click.echo(f"{prefix}{message}", err=True)


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
