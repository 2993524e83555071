"""Finished runs whose probabilities were drawn, for tests of what comes after training."""

import numpy as np
import pandas as pd

from chestxray.data.findings import ABSENT, PRESENT, UNKNOWN, columns
from chestxray.data.index import Index
from chestxray.evaluation.decision import finding_selection
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import Predictions, together
from chestxray.evaluation.shortcuts.verdict import verdict
from chestxray.recipe import Recipe
from chestxray.runs import finding_results
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_json


def index_of(images=120, images_a_patient=2, source="demo", name="films"):
    """Two classes; the first half trains, a quarter validates, a quarter tests."""
    records = [
        {
            "path": f"/{name}/{i:04d}.png",
            "label": ("NORMAL", "PNEUMONIA")[i // images_a_patient % 2],
            "patient": f"p{i // images_a_patient}" if images_a_patient > 1 else "",
            "split": "train" if i < images // 2 else "validation" if i < 3 * images // 4 else "test",
            "source": source,
            "pixel_hash": f"h{i}",
            "unreadable": "",
            "audit": "",
        }
        for i in range(images)
    ]
    return Index.from_records(records, name=name)


def finished(folder, index, recipe=None, skill=1.0, positive=None):
    """Write the folder of a run that predicts the validation and test of `index` with some skill."""
    recipe = recipe or Recipe(model=folder.name, data=("folder:/films",), weights="none", replicates=100)
    folder.mkdir(parents=True)
    rows = index.rows[index.rows["split"].isin(["validation", "test"])].reset_index(drop=True)
    truth = rows["label"].map(index.classes.index).to_numpy()
    images = np.random.default_rng(0).normal(size=(len(rows), len(index.classes)))
    own = np.random.default_rng([int(100 * skill), recipe.seed]).normal(size=images.shape)
    logits = 0.9 * images + 0.5 * own + skill * np.eye(len(index.classes))[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predictions = Predictions.from_probabilities(rows, index.classes, probabilities)
    (folder / "recipe.toml").write_text(recipe.to_toml())
    index.write(folder / "index.parquet")
    predictions.write(folder / "predictions.csv")
    found = evaluate(predictions.of("test"), positive=positive, replicates=recipe.replicates, seed=recipe.seed)
    write_json(folder / "metrics.json", found.to_json())
    return _complete(folder, index)


def findings_index_of(images=400, findings=("Mass", "Edema", "Effusion", "Rare"), seed=0):
    """Findings of two films a patient, each known of about 80% of them and the last one rare; split as `index_of`."""
    rng = np.random.default_rng(seed)
    prevalence = np.array([0.4] * (len(findings) - 1) + [0.01])
    states = np.where(rng.random((images, len(findings))) < prevalence, PRESENT, ABSENT)
    states[rng.random(states.shape) < 0.2] = UNKNOWN
    rows = pd.DataFrame(states.astype(np.int8), columns=columns(findings))
    numbers = np.arange(images)
    rows["path"] = [f"/films/{i:04d}.png" for i in numbers]
    rows["patient"] = [f"p{i // 2}" for i in numbers]
    rows["split"] = np.select([numbers < images // 4, numbers < images // 2], ["train", "validation"], "test")
    rows = rows.assign(pixel_hash=[f"h{i}" for i in numbers], audit="", unreadable="")
    return Index.from_findings(rows, findings, name="films")


def finished_findings(folder, index, skill=1.0, seed=0):
    """Write the folder of a run that predicts the findings of `index` with some skill; it has no reports."""
    recipe = Recipe(model=folder.name, data=("folder:/films",), weights="none", replicates=100)
    folder.mkdir(parents=True)
    tables = []
    for number, split in enumerate(("validation", "test")):
        places = np.flatnonzero((index.rows["split"] == split).to_numpy())
        shape = len(places), len(index.classes)
        images = np.random.default_rng(number).normal(size=shape)
        own = np.random.default_rng([int(100 * skill), number, seed]).normal(size=shape)
        logits = 0.9 * images + 0.5 * own + skill * (np.nan_to_num(index.truth[places]) - 0.5)
        table = FindingPredictions.from_probabilities(index, 1 / (1 + np.exp(-logits)), places)
        tables.append(table)
    validation, rule = finding_selection.decide(tables[0], recipe, None)
    test = tables[1].with_probabilities(rule.calibrated(tables[1].probabilities))
    validation, test = (rule.applied(table, None) for table in (validation, test))
    (folder / "recipe.toml").write_text(recipe.to_toml())
    index.write(folder / "index.parquet")
    together([validation, test]).write(folder / "predictions.csv")
    finding_results.assess_findings(test, index, recipe, rule, folder, validation=validation)
    run = _complete(folder, index)
    finding_results.complete(folder)
    return run


def _complete(folder, index):
    audit = {"exact_duplicates": {"groups": [], "across_splits": []}, "patients": {"across_splits": []}}
    write_json(
        folder / "audit.json", {**audit, "unreadable": [], "dropped": [], "on_leak": "stop", "notes": ["A note."]}
    )
    environment = {"data": {"name": index.name}, "model": {"parameters": 1000, "images_per_second": 50.0}}
    write_json(folder / "environment.json", {**environment, "seconds": {"train": 4.0}})
    (folder / "report.html").write_text("<!doctype html>")
    return Run(folder)


def controlled(run, finding, **states):
    """Give a run controls of these states, with the verdict that goes with them."""
    figure = {"value": 0.9, "low": 0.85, "high": 0.94}
    share = {"value": 0.95 if finding == "shortcut" else 0.3, "low": 0.1, "high": 1.2}
    kinds = {"border": "leak", "thumbnail": "likeness"}
    items = [
        {"name": name, "title": f"The {name}", "sees": "...", "kind": kinds[name], "auroc": figure, "accuracy": figure,
         "share": share, "learnt": {"class": None, "auroc": figure}, "widened_low": 0.8, "limit": 0.55, "up_to": 0.8,
         "state": state, "fires": state == "fires", "says": "..."}
        for name, state in states.items()
    ]  # fmt: skip
    content = {"verdict": verdict(figure, items), "finding": finding, "controls": items, "left_out": [],
               "fires": [item["name"] for item in items if item["fires"]], "model": {"auroc": figure},
               "rule": {"limit": 0.55, "share": 0.75, "excluded": 0.6, "figures": 4},
               "rows": {"all": 480, "train": 240, "validation": 120, "test": 120}}  # fmt: skip
    write_json(run / "controls.json", content)
    return content
