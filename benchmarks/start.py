"""How soon a command answers, beside how long `import tensorflow` takes: the plain way to begin.

python -m benchmarks.start
"""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.table import Row, show

_CLI = "import sys; sys.argv = ['chestxray', *{!r}]; from chestxray.cli.main import main; main()"
COMMANDS = (["--help"], ["models"], ["data", "list"], ["recipes"], ["plugin", "new", "--help"], ["run", "--nonsense"])


def measure(rounds: int = 5) -> list[Row]:
    """A row a command, the fastest of several calls each; the bar of .35 s is told in the name."""
    plain = min(_seconds("import tensorflow") for _ in range(2))
    rows = [
        Row(f"chestxray {' '.join(command)} (aim: .35 s)", plain, _best(_CLI.format(command), rounds), "s")
        for command in COMMANDS
    ]
    bare = min(_seconds("pass") for _ in range(rounds))
    rows.append(
        Row("import chestxray (aim: .1 s)", plain - bare, max(_best("import chestxray", rounds) - bare, 1e-3), "s")
    )
    return rows


def _best(code: str, rounds: int) -> float:
    return min(_seconds(code) for _ in range(rounds))


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    show(measure())


if __name__ == "__main__":
    main()
