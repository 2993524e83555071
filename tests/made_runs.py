"""Folders of runs as `chestxray run` leaves them, but for the model; and pages as a test reads them."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from chestxray.data.index import Index
from chestxray.evaluation.evaluate import evaluate
from chestxray.evaluation.predictions import Predictions
from chestxray.recipe import Recipe
from chestxray.storage.files import write_json, write_text

FOUR = ("clear", "focal consolidation", "bilateral ground glass", "apical cavity")
TWO = ("NORMAL", "PNEUMONIA")
HOSTILE = ("<script>alert(1)</script>", 'a"b|c$d_$ & co')
RECIPE = Recipe(model="inceptionv3", data=("phantom",), image_size=(96, 96), weights="none", replicates=100)


class Page(HTMLParser):
    """The page as its elements, its text, and what is written in its cells."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing, at {self.getpos()}"

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def index_of(classes: tuple[str, ...], *, per_class: int = 40, patients: bool = True, drawn: bool = True) -> Index:
    records = []
    for c, label in enumerate(classes):
        for i in range(per_class):
            split = ("train", "train", "validation", "test")[i % 4]
            patient = f"{c}-{i // 8}-{split}" if patients else ""
            path = f"/home/someone/data/{split}/{c}/{i:03d}.png"
            records.append({"path": path, "label": label, "patient": patient, "split": split})
    index = Index.from_records(records, name="demo", classes=classes, citation="Someone 2020", licence="CC0")
    return index.replace(index.rows.assign(audit="", unreadable="", drawn=drawn))


def predictions_of(index: Index, skill: float = 2.0, seed: int = 0) -> Predictions:
    rows = index.rows[index.rows["split"].isin(("validation", "test"))]
    truth = pd.Categorical(rows["label"], categories=list(index.classes)).codes
    logits = np.random.default_rng(seed).normal(size=(len(rows), len(index.classes)))
    logits[np.arange(len(rows)), truth] += skill
    # Times `skill` they are the log-likelihoods of what was drawn: the probabilities are calibrated.
    probabilities = np.exp(skill * logits) / np.exp(skill * logits).sum(axis=1, keepdims=True)
    return Predictions.from_probabilities(rows, index.classes, probabilities)


def history() -> pd.DataFrame:
    loss = np.array([1.3, 1.1, 1.0, 0.8, 0.6, 0.5, 0.4])
    return pd.DataFrame(
        {
            "phase": ["head"] * 3 + ["finetune"] * 4,
            "epoch": [0, 1, 2, 0, 1, 2, 3],
            "loss": loss,
            "accuracy": 1 - loss / 2,
            "val_loss": [0.2, 0.2, 0.2, 0.9, 0.7, 0.612, 0.65],
            "val_accuracy": 1 - loss / 2.2,
            "learning_rate": 1e-3,
            "seconds": 12.0,
        }
    )


ENVIRONMENT = {
    "chestxray": "0.1.0",
    "python": "3.11.4",
    "platform": "Linux-6.1-x86_64",
    "packages": {"keras": "3.11.3", "tensorflow": "2.20.0"},
    "devices": ["CPU"],
    "plugin": {
        "name": "inceptionv3",
        "distribution": "chestxray-inception",
        "version": "0.1.0",
        "reference": "https://arxiv.org/abs/1512.00567",
        "licence": "Apache-2.0",
        "weights_licence": "",
    },
    "data": {
        "name": "phantom",
        "images": 160,
        "fingerprint": "f00dcafe",
        "licence": "CC0",
        "citation": "Someone",
    },
    "model": {"parameters": 21_802_784, "trained_parameters": 8_196, "image_size": [96, 96]},
    "started": "2025-01-01T10:00:00+00:00",
    "finished": "2025-01-01T10:05:00+00:00",
    "seconds": {"decode": 3.21, "train": 84.0},
}

AUDIT = {
    "exact_duplicates": {"groups": [], "across_splits": []},
    "patients": {"across_splits": []},
    "unreadable": [],
    "on_leak": "stop",
    "dropped": [],
    "notes": [],
}


def write_run(folder: Path, classes: tuple[str, ...] = FOUR, *, skill: float = 2.0, **changes) -> Path:
    """A run's folder as `chestxray run` leaves it, but for the model. `changes` replace parts; None
    leaves one out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = changes.get("index") or index_of(classes)
    predictions = predictions_of(index, skill)
    write_text(folder / "recipe.toml", changes.get("recipe", RECIPE).to_toml())
    index.write(folder / "index.parquet")
    predictions.rows.to_csv(folder / "predictions.csv", index=False)
    positive = classes[1] if len(classes) == 2 else None
    metrics = evaluate(predictions.of("test"), positive=positive, replicates=100, seed=0).to_json()
    write_json(folder / "metrics.json", changes.get("metrics", lambda content: content)(metrics))
    for name, content in (("environment", ENVIRONMENT), ("audit", AUDIT)):
        if (content := changes.get(name, content)) is not None:
            write_json(folder / f"{name}.json", content)
    if (epochs := changes.get("history", history())) is not None:
        epochs.to_csv(folder / "history.csv", index=False)
    write_json(folder / "heatmaps" / "index.json", changes.get("heatmaps") or write_heatmaps(folder, predictions))
    return folder


def write_heatmaps(folder: Path, predictions: Predictions) -> dict:
    (folder / "heatmaps").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    images = []
    for i, row in enumerate(predictions.of("test").rows.head(6).to_dict("records")):
        file = f"{i:03d}.png"
        Image.fromarray(rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(folder / "heatmaps" / file)
        right = row["label"] == row["predicted"]
        probability = row[f"probability_{row['predicted']}"]
        known = {key: row[key] for key in ("path", "label", "predicted")}
        shown = {
            "group": known["label"],
            "explained": known["predicted"],
            "kinds": ["random", "right" if right else "wrong"],
        }
        images.append({"file": file, **known, "probability": probability, "right": right, **shown})
    return {"layer": "mixed10", "reason": "", "method": "gradcam", "images": images}


def samples_of(folder: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        p: rng.integers(0, 256, (32, 32), dtype=np.uint8) for p in Index.read(folder / "index.parquet").rows["path"]
    }


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
