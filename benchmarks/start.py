"""Start-up time of a command, compared with a click command that does nothing (the cost of any Python program).

    python -m benchmarks.start [--rounds 9]

Both alternate, each in a process of its own; the ratio is the median of the rounds' ratios. The last row is a
reference and not a baseline: a program that begins with `import tensorflow`, which none of these commands needs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

from benchmarks.table import Row, show
from benchmarks.timing import Paired, paired

_CLI = "import sys; sys.argv = ['chestxray', *{!r}]; from chestxray.cli.main import main; main()"
#: The smallest click command.
EMPTY = "import click; click.Command('empty', callback=lambda: None).main(['--help'])"
COMMANDS = (["--help"], ["models"], ["data", "list"], ["recipes"], ["plugin", "new", "--help"], ["run", "--nonsense"])


def measure(rounds: int = 9) -> list[Row]:
    """Return one row per command; the names include the targets."""
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
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    show(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
