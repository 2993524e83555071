"""The same model under a leaky split and under honest ones: what the leak is worth.

An image split puts a patient's images on both sides; a model that knows the patient looks better than
it is. The tests are of different images, of patients that are partly the same: the interval of a
difference counts these, and luck in training where each split was trained several times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from chestxray._version import RESEARCH_ONLY
from chestxray.data import sources
from chestxray.data.index import SPLITS as INDEX_SPLITS
from chestxray.data.index import Patients
from chestxray.errors import InputError
from chestxray.evaluation.evaluate import headline_class
from chestxray.evaluation.figure_format import number, with_interval
from chestxray.evaluation.intervals import Figure
from chestxray.evaluation.paired import shared_patients
from chestxray.evaluation.paired.candidate_figures import Estimated, estimated
from chestxray.evaluation.paired.comparison import align, check_metric
from chestxray.evaluation.paired.generalisation_gap import averaged, between
from chestxray.evaluation.predictions import Predictions
from chestxray.recipe import Recipe
from chestxray.report import figures, formatting
from chestxray.report.embedded_images import figure
from chestxray.report.templating import render
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches
from chestxray.storage.files import explained, replacing, write_json, write_text
from chestxray.studies import study

LEAKAGE = "leakage.json"
PAGE = "leakage.html"
#: How each split is called.
SPLITS = {
    "random": "image by image, at random",
    "grouped": "by patient",
    "official": "given with the data",
}


@dataclass(frozen=True)
class Split:
    """One split: its runs, one a seed, the numbers of images that it trains and tests on, and how many test
    images have their patient or a copy outside the test. ``shared`` is how many patients of its test are in
    that of the random split too.
    """

    name: str
    runs: tuple[Run, ...]
    figures: Mapping[str, Figure]
    training: int
    rows: int
    patients: Patients
    leaking: int
    shared: int
    repeats: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        """The split as in ``leakage.json``."""
        return {
            "split": self.name,
            "training": self.training,
            "rows": self.rows,
            **self.patients.to_json(),
            "leaking": self.leaking,
            "test": {name: found.to_json() for name, found in self.figures.items()},
            "patients_shared_with_random": self.shared,
            "repeats": list(self.repeats),
            "folder": str(self.runs[0].folder),
            "folders": [str(run.folder) for run in self.runs],
        }


@dataclass(frozen=True)
class Leakage:
    """``gains``: the random split's figure minus that of each other split, with a 95% interval.
    ``official`` says of which data the official split is, ``known`` is the share of images with a patient.
    """

    model: str
    data: str
    metric: str
    positive: str | None
    splits: tuple[Split, ...]
    gains: Mapping[str, Figure]
    known: float
    official: str = ""

    def to_json(self) -> dict[str, Any]:
        """The contents of ``leakage.json``."""
        return {
            "model": self.model,
            "data": self.data,
            "metric": self.metric,
            "positive": self.positive,
            "splits": [split.to_json() for split in self.splits],
            "gains": {name: gain.to_json() for name, gain in self.gains.items()},
            "patients_known": self.known,
            "official": self.official,
            "verdict": list(self.verdict),
            "research_only": RESEARCH_ONLY,
        }

    def to_frame(self) -> pd.DataFrame:
        """A row a split: images, leaking images, the figure, and the gain of the random split over it."""
        records = []
        for split in self.splits:
            own, gain = split.figures[self.metric], self.gains.get(split.name, Figure(None, None, None))
            records.append(
                {
                    "split": split.name,
                    "training": split.training,
                    "rows": split.rows,
                    **split.patients.to_json(),
                    "leaking": split.leaking,
                    **{self.metric: own.value, f"{self.metric}_low": own.low, f"{self.metric}_high": own.high},
                    **{"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high},
                }
            )
        return pd.DataFrame(records)

    @property
    def verdict(self) -> tuple[str, ...]:
        """What the splits say, in plain sentences."""
        title = formatting.title(self.metric)
        random = self.splits[0]
        value = number(random.figures[self.metric].value)
        said = [
            f"With images drawn at random, {self.model} has this {title}: {value}. {random.leaking:,} of "
            f"{random.rows:,} test images have their patient or a copy in training or validation."
        ]
        trainings = len(random.runs)
        said += [_gain_sentence(name, gain, title, trainings) for name, gain in self.gains.items()]
        if any(gain.low is not None for gain in self.gains.values()):
            said.append(_luck(trainings))
        for split in self.splits[1:]:
            if split.shared:
                patients = formatting.plural(split.shared, "patient")
                said.append(
                    f"{patients} of the test {SPLITS[split.name]} are in the random one too, which the interval counts."
                )
        if "official" in self.gains:
            said.append(self.official)
            said.append("The official test may differ from the rest in more than leaks, such as its time or its place.")
        sizes = {split.name: split.training for split in self.splits}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
            said.append(
                f"The splits train on different numbers of images ({listed}): part of a difference may come from that."
            )
        if self.known == 0:
            said.append(
                "No patient is known in this data: the random split and the one by patient differ by copies of "
                "images alone, and what patients on both sides are worth cannot be measured here."
            )
        elif self.known < 1:
            said.append(f"The patient is known of {100 * self.known:.0f}% of the images; the others may leak unseen.")
        said.append("Each split was drawn once; another draw may show another gain.")
        return tuple(said)


def measure(
    recipe: Recipe,
    folder: str | Path | None = None,
    cache: str | Path | None = None,
    *,
    metric: str = "auroc",
    seeds: int = 1,
    overwrite: bool = False,
) -> tuple[Leakage, Path]:
    """Train the model of `recipe` under each split and write the result; return it and its page.

    The splits are by image at random, by patient, and the official one where the data has one. Leaks
    are kept where a split has them. With `seeds` the figures are means over as many trainings of each split,
    and their intervals count luck in training. Arguments and errors as of `study.run`; ``split``, ``on_leak`` and
    folds of `recipe` do not count.

    Raises:
        InputError: an unknown metric; data to test on, which is the same under every split.
    """
    check_metric(metric)
    if recipe.test_data:
        raise InputError("What a split is worth is measured on a test that is split off; leave out test_data.")
    plain = recipe.replace(split="auto", folds=0, fold=None, held_out=None, on_leak="ignore")
    given = sources.load_index(plain, caches.root(cache)).rows
    splits = ["random", "grouped", *(["official"] if (given["split"] != "").any() else [])]
    recipes = {name: plain.replace(split=name) for name in splits}
    made = study.run(recipes, folder, cache, seeds=seeds, overwrite=overwrite, below="leakage")
    found = _found({name: made.runs(name) for name in splits}, metric, given)
    return found, _write(found, made.folder)


def _official(rows: pd.DataFrame, used: pd.DataFrame) -> str:
    """Of which sources of `rows`, as the data give them, the official split is, and how far the rows `used`
    keep to it.
    """
    given, without = [], []
    for source, part in rows.groupby("source"):
        counts = {name: int((part["split"] == name).sum()) for name in INDEX_SPLITS}
        if any(counts.values()):
            given.append(f"{source} ({', '.join(f'{name} {count:,}' for name, count in counts.items())})")
        else:
            without.append(str(source))
    drawn = f"; {', '.join(without)} without one: drawn by patient" if without else ""
    there = rows[rows["split"] != ""].set_index("path")["split"]
    here = used[used["split"] != ""].set_index("path")["split"].reindex(there.index).dropna()
    moved = int((here != there[here.index]).sum())
    said = f"The official split is that of {', '.join(given)}{drawn}."
    why = "a test that is missing, or too few images to validate on, are drawn anew by patient"
    return f"{said} Of its images {moved:,} stand elsewhere: {why}." if moved else said


def _found(runs: Mapping[str, tuple[Run, ...]], metric: str, given: pd.DataFrame) -> Leakage:
    some = runs["random"][0]
    positive = some.metrics["positive"]
    replicates, seed = some.recipe.replicates, some.recipe.seed
    tests = {name: _tests(made) for name, made in runs.items()}
    chosen = headline_class(tests["random"][0].classes, positive)
    models = {
        name: estimated(
            {name: tables},
            "seeds" if len(tables) > 1 else "one",
            metric,
            chosen,
            tables[0].clusters,
            replicates=replicates,
            seed=seed,
        )[0]
        for name, tables in tests.items()
    }
    splits = tuple(
        Split(
            name=name,
            runs=runs[name],
            figures=model.figures,
            training=int((runs[name][0].index.rows["split"] == "train").sum()),
            rows=len(tests[name][0].rows),
            patients=Patients.of(tests[name][0].rows),
            leaking=leaking(runs[name][0].index.rows),
            shared=shared_patients.shared(tests["random"][0], tests[name][0]) if name != "random" else 0,
            repeats=tuple(None if math.isnan(value) else float(value) for value in model.values),
        )
        for name, model in models.items()
    )
    random = models["random"]
    gains = {}
    for name, model in models.items():
        if name != "random":
            common = shared_patients.covariance(
                random.tables, model.tables, metric, chosen, replicates=replicates, seed=seed
            )
            errors = random.spread().error * model.spread().error
            together = min(1.0, max(-1.0, common / errors)) if errors > 1e-12 else 0.0
            gains[name] = between(random.figures[metric], model.figures[metric], together)
            if averaged(metric, positive) and _present(random) != _present(model):
                gains[name] = Figure(None, None, None)
    return Leakage(
        model=some.recipe.model,
        data=some.environment["data"]["name"],
        metric=metric,
        positive=positive,
        splits=splits,
        gains=gains,
        known=float((some.index.rows["patient"] != "").mean()),
        official=_official(given, runs["official"][0].index.rows) if "official" in runs else "",
    )


def _present(model: Estimated) -> set[str]:
    return set(model.tables[0].rows["label"])


def _tests(runs: Sequence[Run]) -> tuple[Predictions, ...]:
    """The test of each training of one split, with rows in one order."""
    return tuple(align({run.folder.name: run.predictions.of("test") for run in runs}).values())


def leaking(rows: pd.DataFrame) -> int:
    """Number of test images whose patient, or a copy of which, is in training or validation. Copies are those
    of the same pixels and, where they were looked for, those with others.
    """
    used = rows[rows["split"].isin(["train", "validation"])]
    test = rows[rows["split"] == "test"]
    patients = {*zip(used["source"], used["patient"], strict=True)}
    known = [
        (patient != "" and (source, patient) in patients)
        for source, patient in zip(test["source"], test["patient"], strict=True)
    ]
    found = pd.Series(known, index=test.index, dtype=bool) | test["pixel_hash"].isin(used["pixel_hash"])
    if "near_group" in rows:
        found |= (test["near_group"] != "") & test["near_group"].isin(used["near_group"])
    return int(found.sum())


def _gain_sentence(name: str, gain: Figure, title: str, trainings: int) -> str:
    against = f"the split {SPLITS[name]}"
    if gain.value is None:
        return f"Against {against} nothing can be said: the {title} cannot be had on both tests."
    size = with_interval(gain.to_json(), level="95%", signed=True)
    if gain.low is None or gain.high is None or gain.low <= 0 <= gain.high:
        return f"Against {against} that is {size}: a difference that may be luck."
    if trainings == 1:
        return f"Against {against} that is {size}: more than luck in who is tested explains."
    return f"Against {against} that is {size}: more than luck in who is tested and in training explains."


def _luck(trainings: int) -> str:
    if trainings > 1:
        return f"The figures are means over {trainings} trainings of each split, whose spread the intervals count."
    return (
        "Each split was trained once: luck in training is not counted, and may be as large as the difference "
        "(--seeds 3 counts it)."
    )


def _write(found: Leakage, folder: Path) -> Path:
    title = formatting.title(found.metric)
    with explained(folder):
        with replacing(folder / "leakage.csv") as temporary:
            found.to_frame().to_csv(temporary, index=False)
        write_json(folder / LEAKAGE, found.to_json())
        items = {split.name: split.figures[found.metric].to_json() for split in found.splits}
        figures.save(figures.forest(items, f"{title} and 95% interval (no unit)"), folder / "forest.png")
        listed = "; ".join(f"{name} {number(item['value'])}" for name, item in items.items())
        page = render(
            "leakage.html.jinja",
            kind="leakage",
            title=f"What a leaky split is worth: {found.model} on {found.data}",
            headings={"splits": "Splits", "method": "Method"},
            verdict=found.verdict,
            cautions=[],
            found=found,
            how=SPLITS,
            measure=title,
            level="95%",
            forest=figure(folder / "forest.png", f"Forest plot of the {title}: {listed}."),
        )
        write_text(folder / PAGE, page)
    return folder / PAGE
