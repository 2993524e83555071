"""Two sets that label different findings, merged: the AUROC of each finding by how the other set's silence is read.

    python -m benchmarks.merged_findings [--images 900] [--epochs 12] [--seeds 3]

One drawn hospital labels some findings, the other others, and one finding both. The same network is trained on each
set alone, on both merged (what a set does not label is not known there), and on both merged with every missing label
taken for "absent", as is often done. All are tested on the same further films of both hospitals, of which every finding
is labelled: those of both hospitals together, those of the hospital that labels a finding in training, and those of the
other one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from chestxray import workflow
from chestxray.data import sources
from chestxray.data.decoded import decode
from chestxray.data.findings import UNKNOWN, columns
from chestxray.data.index import Index
from chestxray.data.sources.phantom.options import LABELLED
from chestxray.recipe import Recipe
from chestxray.storage import cache

SETS = ("findings-a", "findings-b")
SOURCES = {"findings-a": "phantom-a", "findings-b": "phantom-b"}
FINDINGS = tuple(dict.fromkeys(name for kind in SETS for name in LABELLED[kind]))
SIDE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=900, help="Films of each hospital to train and validate on.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="shallow_cnn")
    chosen = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as place:
        for seed in range(chosen.seeds):
            found += list(trained(chosen, seed, Path(place) / str(seed)))
            print(f"seed {seed}:", len(found), "figures", flush=True)
    table = pd.DataFrame(found)
    mean = table.groupby(["tested on", "finding", "training"], sort=False)["auroc"].mean().unstack("training")
    print(mean.round(3).to_string())
    print("\nMean over findings, and the standard deviation of it over seeds:")
    each = table.groupby(["tested on", "training", "seed"])["auroc"].mean()
    print(each.groupby(["tested on", "training"]).agg(["mean", "std"]).round(3).to_string())


def trained(chosen: argparse.Namespace, seed: int, folder: Path) -> Iterator[dict]:
    """Train the four networks of `seed` and yield their AUROCs, a dictionary each."""
    one, other = (f"phantom:{name},images={chosen.images},unlabelled=0,seed={10 + seed}" for name in SETS)
    merged = Recipe(
        model=chosen.model, data=(one, other), image_size=(SIDE, SIDE), epochs=chosen.epochs, seed=seed,
        split="grouped", test_share=0.05, controls=False, heatmaps=0, replicates=100,
    )  # fmt: skip
    table = folder / "merged.csv"
    as_absent = (f"finding_columns={','.join(FINDINGS)}", "blank=absent")
    recipes = {
        "alone": [merged.replace(data=(data,)) for data in (one, other)],
        "merged": [merged],
        "missing as absent": [merged.replace(data=(f"manifest:{_table(merged, table)}",), data_option=as_absent)],
    }
    drawn = [f"phantom:{name},images={chosen.images},complete=true,splits=none,seed={1000 + seed}" for name in SETS]
    test = sources.load_index(merged.replace(data=tuple(drawn)), cache.root())
    pixels = decode(test, (SIDE, SIDE), "stretch", cache.root()).pixels
    for name, of_this in recipes.items():
        for number, recipe in enumerate(of_this):
            run = workflow.run(recipe, output=folder / f"{name}-{number}")
            answers = run.model.predict(pixels[..., np.newaxis], batch_size=32, verbose=0)
            for finding in (name for name in FINDINGS if name in run.classes):
                for place, auroc in _aurocs(test, finding, answers[:, run.classes.index(finding)]):
                    yield {"training": name, "seed": seed, "finding": finding, "tested on": place, "auroc": auroc}


def _aurocs(test: Index, finding: str, probabilities: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yield the AUROC by hospital, of those that label `finding` and of the other, and of both together."""
    truth = test.truth[:, test.classes.index(finding)]
    known = ~np.isnan(truth)
    yield "both hospitals together", float(roc_auc_score(truth[known], probabilities[known]))
    for name in SETS:
        rows = (test.rows["source"] == SOURCES[name]).to_numpy() & known
        place = "the hospital that labels it" if finding in LABELLED[name] else "the other hospital"
        yield place, float(roc_auc_score(truth[rows], probabilities[rows]))


def _table(recipe: Recipe, path: Path) -> Path:
    """Write the table of the merged data of `recipe`, with empty cells for what is not known."""
    index = sources.load_index(recipe, cache.root())
    given = index.rows[columns(index.classes)].astype("Int64").set_axis(list(index.classes), axis=1)
    table = index.rows[["path", "patient"]].join(given.mask(given == UNKNOWN))
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    return path


if __name__ == "__main__":
    main()
