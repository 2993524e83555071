"""Writes the tables of ``near_duplicates.md`` from the results of `benchmarks/near_duplicates.py`.

    python -m benchmarks.near_duplicates_report KERMANY.json MONTGOMERY.json FOUR_CLASS.json > near_duplicates.md

Each file holds the output of one run of the benchmark. Time and memory are those of the first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SETS = ("Kermany", "Montgomery", "four classes")
COUNTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "films": lambda one: f"{one['films']:,}",
    "patients; a film of an unknown one counts as one": lambda one: f"{one['patients']:,}",
    "pairs of films of different patients": lambda one: f"{one['pairs_of_different_patients']:,}",
    "of them compared after alignment": lambda one: f"{one['candidates']:,}",
    "taken for copies": lambda one: f"{one['flagged']:,}",
    "look-alikes": lambda one: f"{one['look_alikes']:,}",
    "highest correlation": lambda one: "{:.3f}: {}, {}".format(*one["highest"][0]),
    "share of patients in a pair taken for a copy, upper 95% limit": lambda one: f"{one['patients_upper_95']:.4f}",
    "seconds of processor": lambda one: f"{one['processor_seconds']:.1f}",
}
ABOUT = """\
# Near copies: what is found, what is taken for a copy, and what it costs

```
python benchmarks/near_duplicates.py kermany --images 5000 20000 --plain
python benchmarks/near_duplicates.py montgomery/images --patient-pattern 'MCUCXR_(\\d+)' --label-pattern '_(\\d)\\.png'
python benchmarks/near_duplicates.py four-class --patient-pattern 'nothing-(is-known)'
```

Images of 224 pixels. Kermany's set has children's films, Montgomery's adults', the third is a sample of a COVID-19 \
collection whose films name no patient.

## Taken for a copy
"""
LOOKED_AT = """
COVID-326 and COVID-797 of the third set, looked at, are one film under two names. The two most alike pairs of \
Montgomery's set are films of one person under several numbers. Pairs share their films, so that patients are counted \
and not pairs.

## Found

Share of edited copies of 300 films (of Montgomery's set all) that are found among the films and all their copies of \
one kind, in percent. `EDITS` of the benchmark says what each is.
"""
COST = """
## Cost

Synthetic films of 64 pixels, 1 in 100 an edited copy; `plain` compares the descriptions of every film with those of \
every other. Seconds of processor.
"""


def main() -> None:
    """Print the page."""
    results = [json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:]]
    rows = [[name, *map(show, results)] for name, show in COUNTS.items()]
    print(ABOUT, *_table(["", *SETS], rows), sep="\n")
    found = [[kind, *(f"{100 * one['recall'][kind]:.1f}" for one in results)] for kind in results[0]["recall"]]
    print(LOOKED_AT, *_table(["edit", *SETS], found), sep="\n")
    steps = ("processor_seconds", "describing", "looking_up", "comparing")
    costs = [
        [
            f"{one['films']:,}", "plain" if one["plain"] else "by cells", *(f"{one[step]:,.1f}" for step in steps),
            f"{100 * one['copies_found']:.1f}%", str(one["others_found"]), f"{one['peak_mb']:,}",
        ]
        for one in results[0]["cost"]
    ]  # fmt: skip
    heads = ["films", "search", "seconds", *steps[1:], "copies found", "others", "peak memory, MB"]
    print(COST, *_table([head.replace("_", " ") for head in heads], costs), sep="\n")


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


if __name__ == "__main__":
    main()
