"""Needs chestxray alone: figures with intervals of the probabilities that `save_probabilities.py` wrote.

python evaluate_probabilities.py test.npz               # how good is the model?
python evaluate_probabilities.py test.npz other.npz     # and does it differ from another, on the same images?
"""

import sys
from pathlib import Path

import numpy as np

import chestxray as cx
from chestxray.errors import ChestXrayError, InputError


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; none of them is a pickle."""
    with np.load(path) as saved:
        return dict(saved)


def report(paths: list[Path]) -> None:
    """Print the figures of each file, and the paired comparison where there are several."""
    saved = {path.stem: read(path) for path in paths}
    first = next(iter(saved.values()))
    own = {"groups": first["patient"], "classes": first["classes"].tolist()}
    for name, test in saved.items():
        if any(not np.array_equal(test[key], first[key]) for key in ("label", "patient", "classes")):
            raise InputError(f"{name} is of other images than {paths[0].stem}, so that they do not compare.")
        print(f"{name}\n{cx.evaluate(first['label'], test['probability'], **own).to_frame().round(3)}\n")
    if len(saved) > 1:
        compared = cx.compare({name: test["probability"] for name, test in saved.items()}, first["label"], **own)
        print(compared.pairs_to_frame().round(3).to_string(index=False))
        print(compared.scope)


if __name__ == "__main__":
    try:
        report([Path(name) for name in sys.argv[1:]])
    except ChestXrayError as error:
        sys.exit(str(error))
