"""How soon a command answers, beside a click command that does nothing: what any program of Python takes.

    python -m benchmarks.start [--rounds 9]

Both go in turn, each in a process of its own; medians of the rounds' ratios. Last, as a reference and not
as a plain way, one that begins with `import tensorflow`, which none of these commands needs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

from benchmarks.table import Row, show
from benchmarks.timing import Paired, paired

_CLI = "import sys; sys.argv = ['chestxray', *{!r}]; from chestxray.cli.main import main; main()"
#: The least that a command line of click can be.
EMPTY = "import click; click.Command('empty', callback=lambda: None).main(['--help'])"
COMMANDS = (["--help"], ["models"], ["data", "list"], ["recipes"], ["plugin", "new", "--help"], ["run", "--nonsense"])


def measure(rounds: int = 9) -> list[Row]:
    """A row a command; the aims are told in the names."""
    rows = [
        Row.of(f"chestxray {' '.join(command)} (aim: .35 s)", _beside(EMPTY, _CLI.format(command), rounds))
        for command in COMMANDS
    ]
    rows.append(
        Row.of("import chestxray (aim: .1 s)", _beside("pass", "import chestxray", rounds), note="plain: python")
    )
    reference = _beside("import tensorflow", _CLI.format(["--help"]), 2)
    return [*rows, Row.of("chestxray --help, beside import tensorflow", reference, note="no plain way of --help")]


def _beside(plain: str, ours: str, rounds: int) -> Paired:
    return paired(_process(plain), _process(ours), rounds)


def _process(code: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    show(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
