"""The result of a comparison in sentences: what is shown of the models, and what weakens it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chestxray.data.index import Patients
from chestxray.evaluation.figure_format import with_interval
from chestxray.evaluation.paired.comparison_result import Comparison, Pair, Standing
from chestxray.evaluation.published_metrics import lower_is_better
from chestxray.evaluation.shortcuts.verdict import beside
from chestxray.report import formatting
from chestxray.report.limitations import of_model
from chestxray.runs import run_folder
from chestxray.runs.run_folder import Run
from chestxray.studies.candidates import Candidate
from chestxray.studies.compared import Compared
from chestxray.studies.study import test_of

#: An AUROC above this, of fewer patients than that, leaves tests without power (``benchmarks/paired_tests.md``).
NEAR_ONE = 0.97
FEW_PATIENTS = 100


def verdict(compared: Compared) -> tuple[str, ...]:
    """Return the result in sentences: what is shown of the models, and what is not."""
    comparison, candidates = compared.comparison, compared.candidates
    best = comparison.standings[0]
    title = spoken_title(comparison.metric)
    if best.figure.value is None:
        return (f"The {title} cannot be computed on these test images, so that nothing can be said of the models.",)
    where = f"{formatting.plural(comparison.rows, 'test image')} of {comparison.patients}"
    end = "lowest" if lower_is_better(comparison.metric) else "highest"
    said = [f"On {where}, {best.model} has the {end} {title}: {with_interval(best.figure.to_json(), level='95%')}."]
    said += against_the_rest(best, comparison, explained=candidates[best.model].controls["finding"] == "shortcut")
    # Directly after the ranking: a score that a shortcut explains is worth nothing, however high.
    said += beside({s.model: candidates[s.model].controls for s in comparison.standings})
    said += few_near_one(comparison)
    said += within_margin(comparison)
    said.append(comparison.scope[0].upper() + comparison.scope[1:])
    said.append("This holds for patients like those of the test; at another hospital the order may differ.")
    return tuple(said)


def spoken_title(metric: str) -> str:
    """Return the title of a figure as it stands in a sentence."""
    title = formatting.title(metric)
    return title if title[1].isupper() or title[1].isdigit() else title[0].lower() + title[1:]


def cautions(candidates: Mapping[str, Candidate]) -> list[str]:
    """Return what weakens the whole comparison, in sentences."""
    runs = [run for candidate in candidates.values() for run in candidate.runs]
    said: list[str] = []
    if any((run.index.drawn & (run.index.rows["split"] == "test")).any() for run in runs):
        said.append("Test images are drawn by a program. The figures say nothing about patients.")
    said += _leaks(candidates)
    unknown = Patients.of(test_of(runs[0]).rows).unknown
    if unknown:
        said.append(
            f"The patients of {formatting.plural(unknown, 'test image')} are not known. Each counts as a patient of "
            "its own, which makes intervals narrower and p-values smaller than they should be."
        )
    return said + _serious(candidates)


def _serious(candidates: Mapping[str, Candidate]) -> list[str]:
    """Return the serious limitations of single models, each once with the names of its models and, where it is of some
    findings alone, of these.
    """
    whose: dict[str, dict[str, dict[str, None]]] = {}
    for name, candidate in candidates.items():
        for run in candidate.runs:
            parts = (run.findings or {"": run}).items()
            found = [(f, caution) for f, part in parts for caution in of_model(run_folder.open_complete(part.folder))]
            texts: dict[str, set[str]] = {}
            for _, caution in found:
                texts.setdefault(caution.title, set()).add(caution.text)
            for finding, caution in found:
                # Of many findings, a text for each would hide the result.
                said = caution.text if len(texts[caution.title]) == 1 else "The reports of these findings say more."
                if caution.weight == "serious":
                    whose.setdefault(f"{caution.title}. {said}", {}).setdefault(name, {})[finding] = None
    sizes = {name: max(1, len(candidate.findings)) for name, candidate in candidates.items()}
    return [f"{of_models(names, sizes, everybody='All')}: {text}" for text, names in whose.items()]


def of_models(names: Mapping[str, Collection[str]], sizes: Mapping[str, int], *, everybody: str = "all models") -> str:
    """Return the names of models, each with its findings in `names` where these are not all that it has.

    `sizes` are the numbers of findings of all models of the comparison; `everybody` stands for all of them.
    """
    groups = {name: "" if len(of) == sizes[name] else listed(list(of)) for name, of in names.items()}
    if len(names) == len(sizes) and len(set(groups.values())) == 1:
        return everybody + next(f" ({of})" if of else "" for of in groups.values())
    return listed([f"{name} ({of})" if of else name for name, of in groups.items()])


def _leaks(candidates: Mapping[str, Candidate]) -> list[str]:
    """Return sentences on models trained on test images or patients, and on models of which that is not known."""
    said, unsearched = [], []
    for name, candidate in candidates.items():
        audits = [(run, run.audit) for run in candidate.runs]
        seen = [_seen(run, audit) for run, audit in audits if audit.get("on_leak") == "ignore"]
        # Of several trainings, the one with most leaks.
        if found := max(seen, key=lambda counts: sum(counts.values()), default=None):
            what = listed([formatting.plural(count, *names) for names, count in found.items()])
            said.append(f"{name} was trained or chosen on {what}, which were kept: its figures are too good.")
        if not all(audit.get("near_duplicates", {}).get("searched") for _, audit in audits):
            unsearched.append(name)
    drawn = all(run.index.drawn.all() for candidate in candidates.values() for run in candidate.runs)
    if unsearched and not drawn:
        said.append(f"Whether {listed(unsearched)} had edited copies of test images in training was not looked for.")
    return said


def _seen(run: Run, audit: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """Return the numbers of copies and patients of the test that the run was trained or chosen on, by their names in
    singular and plural. Groups straddling training and validation alone are not counted.
    """
    tested = set(test_of(run).rows["path"])
    of = {kind: audit.get(kind, {}).get("across_splits", []) for kind in ("exact_duplicates", "near_duplicates")}
    counts = {
        ("copy of a test image", "copies of test images"): of["exact_duplicates"],
        ("edited copy of a test image", "edited copies of test images"): of["near_duplicates"],
    }
    found = {names: sum(not tested.isdisjoint(group) for group in groups) for names, groups in counts.items()}
    patients = audit.get("patients", {}).get("across_splits", [])
    found["patient of the test", "patients of the test"] = sum("test" in item["splits"] for item in patients)
    return {names: count for names, count in found.items() if count}


def against_the_rest(best: Standing, comparison: Comparison, *, explained: bool) -> list[str]:
    """Return sentences on the best model beside the others. `explained`: a shortcut could explain its score."""
    own = {
        pair.second if pair.first == best.model else pair.first: pair for pair in comparison.pairs if _of(pair, best)
    }
    apart = [name for name, pair in own.items() if pair.apart]
    alike = [name for name in own if name not in apart]
    said = []
    if apart:
        whom = "every other model" if not alike and len(apart) > 3 else listed(apart)
        higher = "Its score is higher than that of" if explained else "It is better than"
        said.append(f"{higher} {whom}: chance alone hardly explains the difference.")
    if alike:
        limits = [
            abs(x) for name in alike for x in (own[name].difference.low, own[name].difference.high) if x is not None
        ]
        room = f"; differences of up to {max(limits):.3f} remain possible" if limits else ""
        said.append(
            f"It cannot be told apart from {listed(alike)}: the difference may be due to chance. Nor are they "
            f"shown to be equally good{room}."
        )
    return said


def _of(pair: Pair, standing: Standing) -> bool:
    return standing.model in (pair.first, pair.second)


def few_near_one(comparison: Comparison) -> list[str]:
    """Return a sentence where the test has hardly any power, see ``benchmarks/paired_tests.md``."""
    best, patients = comparison.standings[0].figure.value, comparison.patients
    near = comparison.metric == "auroc" and best is not None and best > NEAR_ONE
    if not near or (patients.known or 0) + patients.unknown >= FEW_PATIENTS:
        return []
    return [
        f"An AUROC above {NEAR_ONE:g} of fewer than {FEW_PATIENTS} patients depends on a handful of images: hardly any "
        "difference can be shown here, and intervals of differences may be too short."
    ]


def within_margin(comparison: Comparison) -> list[str]:
    """Return sentences on equivalence and non-inferiority; none where no margin was given."""
    if comparison.margin is None:
        return []
    title, room = spoken_title(comparison.metric), f"{comparison.margin:g}"
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


def listed(names: Sequence[str]) -> str:
    """Return names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
