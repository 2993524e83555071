"""A comparison -> its folder: tables, figure and one self-contained page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from chestxray._version import RESEARCH_ONLY
from chestxray.data.index import Patients
from chestxray.errors import OutputError
from chestxray.evaluation.figure_format import number, with_interval
from chestxray.evaluation.paired.comparison_result import Comparison, Pair, Standing
from chestxray.evaluation.paired.letters import caption
from chestxray.evaluation.paired.p_value_function import ALPHA
from chestxray.evaluation.shortcuts.verdict import beside, short
from chestxray.evaluation.weighted_metrics import HEADLINE, LOSSES
from chestxray.report import figures, formatting
from chestxray.report.embedded_images import Picture, figure
from chestxray.report.limitations import of_model
from chestxray.report.templating import render
from chestxray.runs import run_folder
from chestxray.runs.run_folder import Run
from chestxray.storage.files import explained, replacing, write_json, write_text
from chestxray.studies.candidates import Contender
from chestxray.studies.study import STUDY

#: What makes a folder a comparison's.
COMPARISON = "comparison.json"
PAGE = "comparison.html"
#: An AUROC above this, of fewer patients than that, leaves tests without power (``benchmarks/paired_tests.md``).
NEAR_ONE = 0.97
FEW_PATIENTS = 100


@dataclass(frozen=True)
class Compared:
    """A comparison and what the compared models cost; ``data`` names what they were tested on."""

    comparison: Comparison
    contenders: Mapping[str, Contender]
    data: str

    @property
    def models(self) -> list[dict[str, Any]]:
        """The models, the best first: figures and cost, as in ``comparison.json``."""
        return [item | self.contenders[item["model"]].to_json() for item in self.comparison.to_json()["models"]]

    def to_frame(self) -> pd.DataFrame:
        """A row a model, the best first: cost, and every figure with its interval, the compared one first."""
        return pd.DataFrame([_flat(item, self.comparison.metric) for item in self.models])


def write(compared: Compared, folder: Path) -> Path:
    """Write the comparison into `folder` and return the path of the page.

    ``comparison.csv``, ``pairs.csv``, ``comparison.json``, ``forest.png``, ``comparison.html``.

    Raises:
        OutputError: `folder` holds something else, or cannot be written.
    """
    check_folder(folder)
    comparison = compared.comparison
    said = verdict(compared)
    with explained(folder):
        for name, frame in (("comparison.csv", compared.to_frame()), ("pairs.csv", comparison.pairs_to_frame())):
            with replacing(folder / name) as temporary:
                frame.to_csv(temporary, index=False)
        content = comparison.to_json() | {"models": compared.models, "data": compared.data, "verdict": list(said)}
        write_json(folder / COMPARISON, content | {"research_only": RESEARCH_ONLY})
        write_text(folder / PAGE, _page(compared, said, _forest(comparison, folder / "forest.png")))
    return folder / PAGE


def check_folder(folder: Path) -> None:
    """Raises `OutputError` where `folder` holds anything but a comparison or a study."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"The output {folder} is a file; it must be a folder.")
    own = any((folder / name).is_file() for name in (COMPARISON, STUDY))
    if folder.is_dir() and any(folder.iterdir()) and not own:
        raise OutputError(f"The output folder {folder} exists and is no comparison; choose another with --output.")


def verdict(compared: Compared) -> tuple[str, ...]:
    """What can be said of the models in plain sentences, and what cannot."""
    comparison, contenders = compared.comparison, compared.contenders
    best = comparison.standings[0]
    title = _spoken_title(comparison.metric)
    if best.figure.value is None:
        return (f"The {title} cannot be had on these test images, so that nothing can be said of the models.",)
    where = f"{formatting.plural(comparison.rows, 'test image')} of {comparison.patients}"
    end = "lowest" if comparison.metric in LOSSES else "highest"
    said = [f"On {where}, {best.model} has the {end} {title}: {with_interval(best.figure.to_json(), level='95%')}."]
    said += _against_the_rest(best, comparison, explained=contenders[best.model].controls["finding"] == "shortcut")
    # In the order of the table, next to who is best: no better score is worth more than what explains it.
    said += beside({s.model: contenders[s.model].controls for s in comparison.standings})
    said += _few_near_one(comparison)
    said += within_margin(comparison)
    said.append(comparison.scope[0].upper() + comparison.scope[1:])
    said.append("This is about patients like those of the test; at another hospital the order may be another.")
    return tuple(said)


def _spoken_title(metric: str) -> str:
    title = formatting.title(metric)
    return title if title[1].isupper() or title[1].isdigit() else title[0].lower() + title[1:]


def cautions(contenders: Mapping[str, Contender]) -> list[str]:
    """What weakens the whole comparison, in sentences."""
    runs = [run for contender in contenders.values() for run in contender.runs]
    said = []
    if any((run.index.drawn & (run.index.rows["split"] == "test")).any() for run in runs):
        said.append("Test images are drawn by a program. The figures say nothing about patients.")
    said += _leaks(contenders)
    unknown = Patients.of(runs[0].predictions.of("test").rows).unknown
    if unknown:
        said.append(
            f"The patients of {formatting.plural(unknown, 'test image')} are not known. Each counts as a patient of "
            "its own, which makes intervals narrower and p-values smaller than they should be."
        )
    return said + _serious(contenders)


def _serious(contenders: Mapping[str, Contender]) -> list[str]:
    """What is serious of single models, once for all that it is said of."""
    whose: dict[str, dict[str, None]] = {}
    for name, contender in contenders.items():
        for run in contender.runs:
            for caution in of_model(run_folder.open_complete(run.folder)):
                if caution.weight == "serious":
                    whose.setdefault(f"{caution.title}. {caution.text}", {})[name] = None
    everybody = len(contenders)
    return [f"{'All' if len(names) == everybody else _listed(list(names))}: {text}" for text, names in whose.items()]


def _leaks(contenders: Mapping[str, Contender]) -> list[str]:
    """Whose figures are too good, since its training has seen of the test, and of whom that is not known."""
    said, unsearched = [], []
    for name, contender in contenders.items():
        audits = [(run, run.audit) for run in contender.runs]
        seen = [_seen(run, audit) for run, audit in audits if audit.get("on_leak") == "ignore"]
        # Of several trainings the worst is told.
        if found := max(seen, key=lambda counts: sum(counts.values()), default=None):
            listed = _listed([formatting.plural(count, *names) for names, count in found.items()])
            said.append(f"{name} was trained or chosen on {listed}, which were kept: its figures are too good.")
        if not all(audit.get("near_duplicates", {}).get("searched") for _, audit in audits):
            unsearched.append(name)
    drawn = all(run.index.drawn.all() for contender in contenders.values() for run in contender.runs)
    if unsearched and not drawn:
        said.append(f"Whether {_listed(unsearched)} had edited copies of test images in training was not looked for.")
    return said


def _seen(run: Run, audit: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """How many groups of copies and patients of the test were trained or chosen on, by their names in the
    singular and plural; those straddling training and validation alone are not counted.
    """
    tested = set(run.predictions.of("test").rows["path"])
    of = {kind: audit.get(kind, {}).get("across_splits", []) for kind in ("exact_duplicates", "near_duplicates")}
    counts = {
        ("copy of a test image", "copies of test images"): of["exact_duplicates"],
        ("edited copy of a test image", "edited copies of test images"): of["near_duplicates"],
    }
    found = {names: sum(not tested.isdisjoint(group) for group in groups) for names, groups in counts.items()}
    patients = audit.get("patients", {}).get("across_splits", [])
    found["patient of the test", "patients of the test"] = sum("test" in item["splits"] for item in patients)
    return {names: count for names, count in found.items() if count}


def _against_the_rest(best: Standing, comparison: Comparison, *, explained: bool) -> list[str]:
    """`explained`: a shortcut explains the best score, so that a higher one is no better model."""
    own = {
        pair.second if pair.first == best.model else pair.first: pair for pair in comparison.pairs if _of(pair, best)
    }
    apart = [name for name, pair in own.items() if pair.apart]
    alike = [name for name in own if name not in apart]
    said = []
    if apart:
        whom = "every other model" if not alike and len(apart) > 3 else _listed(apart)
        higher = "Its score is higher than that of" if explained else "It is better than"
        said.append(f"{higher} {whom}: chance alone hardly explains the difference.")
    if alike:
        limits = [
            abs(x) for name in alike for x in (own[name].difference.low, own[name].difference.high) if x is not None
        ]
        room = f"; differences of up to {max(limits):.3f} remain possible" if limits else ""
        said.append(
            f"It cannot be told apart from {_listed(alike)}: the difference may be luck. Nor are they shown to be "
            f"equally good{room}."
        )
    return said


def _of(pair: Pair, standing: Standing) -> bool:
    return standing.model in (pair.first, pair.second)


def _few_near_one(comparison: Comparison) -> list[str]:
    """Where no test has power: ``benchmarks/paired_tests.md``."""
    best, patients = comparison.standings[0].figure.value, comparison.patients
    near = comparison.metric == "auroc" and best is not None and best > NEAR_ONE
    if not near or (patients.known or 0) + patients.unknown >= FEW_PATIENTS:
        return []
    return [
        f"An AUROC above {NEAR_ONE:g} of fewer than {FEW_PATIENTS} patients hangs on a handful of images: hardly a "
        "difference can be shown here, and intervals of differences may be too short."
    ]


def within_margin(comparison: Comparison) -> list[str]:
    """What is shown within the margin, in sentences; none where no margin was asked for."""
    if comparison.margin is None:
        return []
    title, room = _spoken_title(comparison.metric), f"{comparison.margin:g}"
    found = [(pair, pair.margin.finding) for pair in comparison.pairs if pair.margin is not None]
    equal = [f"{pair.first} and {pair.second}" for pair, finding in found if finding == "equivalent"]
    ends = {"first not inferior": lambda p: (p.first, p.second), "second not inferior": lambda p: (p.second, p.first)}
    kept = ["{} to {}".format(*ends[finding](pair)) for pair, finding in found if finding in ends]
    said = []
    if equal:
        said.append(f"Equivalent within {room} of {title}: {'; '.join(equal)}.")
    if kept:
        said.append(f"Not inferior by {room} of {title}: {'; '.join(kept)}.")
    if undecided := [f"{pair.first} and {pair.second}" for pair, finding in found if finding == "undecided"]:
        said.append(f"Neither is shown not to be worse by {room}: {'; '.join(undecided)}.")
    return [*said, "The margin was stated by the user; one chosen after the figures were seen shows nothing."]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def spread(repeats: Sequence[float | None]) -> float | None:
    """Standard deviation of the figure over repeated trainings; None where there are not two."""
    known = [value for value in repeats if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def told_spread(repeats: Sequence[float | None]) -> str:
    """The range of single trainings and their standard deviation, ``-`` where there is but one."""
    deviation = spread(repeats)
    known = [value for value in repeats if value is not None]
    return "-" if deviation is None else f"{min(known):.3f} to {max(known):.3f}, SD {deviation:.3f}"


def _flat(item: Mapping[str, Any], metric: str) -> dict[str, Any]:
    names = ("model", "letters", "trainings", "parameters", "train_seconds", "images_per_second")
    row = {name: item[name] for name in names}
    row |= {"controls": item["controls"]["finding"], "controls_fire": " ".join(item["controls"]["fires"])}
    for name in (metric, *(other for other in HEADLINE if other != metric)):
        figure_of = item["test"][name]
        row |= {name: figure_of["value"], f"{name}_low": figure_of["low"], f"{name}_high": figure_of["high"]}
        if name == metric:
            row[f"{name}_sd"] = spread(item["repeats"])
    return row


def _forest(comparison: Comparison, path: Path) -> Picture:
    standings = comparison.standings
    title = formatting.title(comparison.metric)
    drawn = figures.forest(
        {s.model: s.figure.to_json() for s in standings},
        f"{title} and 95% interval (no unit)",
        marks={s.model: s.letters for s in standings},
        repeats={s.model: s.repeats for s in standings},
    )
    figures.save(drawn, path)
    listed = "; ".join(f"{s.model} {number(s.figure.value)}{f' ({s.letters})' if s.letters else ''}" for s in standings)
    return figure(path, f"Forest plot of the {title}: {listed}.")


def _page(compared: Compared, said: Sequence[str], forest: Picture) -> str:
    comparison = compared.comparison
    content = comparison.to_json()
    names = [standing.model for standing in comparison.standings]
    title = f"{' and '.join(names)} compared" if len(names) == 2 else f"{len(names)} models compared"
    headings = {
        "models": "Models",
        "controls": "What their controls say",
        "pairs": "Pair by pair",
        "measures": "All measures",
        "method": "Method",
    }
    pairs = [
        item | {"apart": pair.apart, "p_said": formatting.p_text(pair.p), "p_holm_said": formatting.p_text(pair.p_holm)}
        for item, pair in zip(content["pairs"], comparison.pairs, strict=True)
    ]
    contenders = compared.contenders
    models = [
        item | {"single": told_spread(item["repeats"]), "controls_said": short(contenders[item["model"]].controls)}
        for item in compared.models
    ]
    return render(
        "comparison.html.jinja",
        kind="comparison",
        title=f"{title} on {compared.data}",
        headings=headings,
        verdict=said,
        cautions=cautions(contenders),
        models=models,
        letters_said=caption(standing.letters for standing in comparison.standings),
        pairs=pairs,
        measures=formatting.ordered(content["models"][0]["test"]),
        measure=formatting.title(comparison.metric),
        repeated=any(len(standing.repeats) > 1 for standing in comparison.standings),
        level="95%",
        alpha=ALPHA,
        positive=comparison.positive,
        scope=comparison.scope[0].upper() + comparison.scope[1:],
        design=comparison.design,
        margin=comparison.margin,
        interval=content["interval"],
        forest=forest,
    )
