"""``python -m fuzz --seconds 600``: every target for its share of the time; exit code 1 where something was found."""

from __future__ import annotations

import argparse
import importlib.util
import sys

from fuzz.running import Outcome, Target, run

TARGETS = (
    Target("images", "fuzz.pictures:prepare", share=3.0),
    Target("tables", "fuzz.tables:prepare"),
    Target("findings", "fuzz.findings:prepare"),
    Target("cached", "fuzz.cached:prepare", needs=("pyarrow",)),
    Target("installations", "fuzz.installations:prepare"),
    Target("recipes", "fuzz.recipes:prepare"),
    Target("weights", "fuzz.weights:prepare", needs=("h5py", "safetensors")),
    Target("runs", "fuzz.runs:prepare", seconds=30.0, bytes=1_000_000_000),
    # ONNX Runtime allocates what a graph asks for, which is not bounded here.
    Target("onnx", "fuzz.graphs:prepare", bytes=2_000_000_000, needs=("onnx", "onnxruntime")),
    Target("requests", "fuzz.requests:prepare", seconds=30.0, needs=("schemathesis", "flask")),
)


def main(arguments: list[str] | None = None, targets: tuple[Target, ...] = TARGETS) -> int:
    """Run, print a line a target and every finding; 1 where there is one."""
    options = _options(targets).parse_args(arguments)
    chosen = [target for target in targets if not options.target or target.name in options.target]
    total = sum(target.share for target in chosen)
    found = False
    for target in chosen:
        if lacks := [name for name in target.needs if importlib.util.find_spec(name) is None]:
            print(f"{target.name}: not run, as {', '.join(lacks)} is not installed.", flush=True)
            found = found or options.require
            continue
        seconds = options.seconds * target.share / total
        outcome = run(target, options.seed, seconds, options.cases)
        print(_summary(target, outcome), flush=True)
        for seed, what in outcome.findings[: options.show]:
            print(f"\n--- {target.name}, seed {seed}: python -m fuzz --target {target.name} --seed {seed} --cases 1")
            print(what, flush=True)
        found = found or bool(outcome.findings) or not outcome.cases
    return int(found)


def _options(targets: tuple[Target, ...]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="time of all cases together [600]")
    names = [target.name for target in targets]
    parser.add_argument("--target", action="append", choices=names, help="this one alone; repeated: these alone")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case [0]")
    parser.add_argument("--cases", type=int, default=10**9, help="at most so many of a target")
    parser.add_argument("--show", type=int, default=10, help="findings to print of a target [10]")
    parser.add_argument("--require", action="store_true", help="a target that cannot be run is a failure")
    return parser


def _several(outcome: Outcome) -> str:
    return f" of {outcome.tried:,} in all" if outcome.tried > outcome.cases else ""


def _summary(target: Target, outcome: Outcome) -> str:
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in outcome.refused.most_common())
    return (
        f"{target.name}: {outcome.cases:,} cases{_several(outcome)}, {len(outcome.findings)} findings; "
        f"{kinds or 'none ended'}; slowest {outcome.slowest:.2f} s, most memory {outcome.largest / 1e6:.0f} MB."
    )


if __name__ == "__main__":
    sys.exit(main())
