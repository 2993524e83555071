"""The result of a comparison on findings in sentences: of the means first, then of single findings."""

from __future__ import annotations

from chestxray.evaluation.figure_format import with_interval
from chestxray.evaluation.shortcuts.verdict import FINDINGS
from chestxray.report.formatting import plural
from chestxray.studies.compared import FindingsCompared
from chestxray.studies.comparison_verdict import (
    against_the_rest,
    few_near_one,
    listed,
    of_models,
    spoken_title,
    within_margin,
)

_OF_CONTROLS = {
    "shortcut": "The scores of {} cannot be taken as evidence that disease is recognised: as much could be learnt from "
    "what shows no disease, whether or not a model did so.",
    "part": "Part of the scores of {} may come from what shows no disease.",
    "likeness": "Most of the scores of {} can be reached without a detailed view of the lungs.",
    "undecided": "Whether a control explains the scores of {} cannot be told from so few images.",
    "none": "No control explains the scores of {}.",
    "unknown": "Of {}, no controls were run: whether a shortcut explains these scores is not known.",
}


def verdict(compared: FindingsCompared) -> tuple[str, ...]:
    """Return the result in sentences: what is shown of the models, and what is not."""
    comparison = compared.comparison
    mean = comparison.mean
    best, title = mean.standings[0], f"mean {spoken_title(comparison.metric)}"
    scored = plural(len(comparison.findings), "finding")
    if best.figure.value is None:
        return (f"The {title} of {scored} cannot be computed on these test images: nothing can be said of the models.",)
    where = f"{plural(mean.rows, 'test image')} of {mean.patients}"
    figure = with_interval(best.figure.to_json(), level="95%")
    said = [f"On {where}, {best.model} has the highest {title} of {scored}: {figure}."]
    of_best = [compared.controls_of(name, best.model)["finding"] for name in comparison.findings]
    said += against_the_rest(best, mean, explained="shortcut" in of_best)
    said.append(_single(compared))
    said += _controls(compared)
    said += few_near_one(mean)
    said += within_margin(mean)
    if comparison.not_scored:
        said.append(f"Not compared, as too few patients have it or lack it: {', '.join(comparison.not_scored)}.")
    said.append(mean.scope[0].upper() + mean.scope[1:])
    said.append("This holds for patients like those of the test; at another hospital the order may differ.")
    return tuple(said)


def _single(compared: FindingsCompared) -> str:
    """Return a sentence on the pairs that differ in single findings."""
    comparison, above = compared.comparison, dict[tuple[str, str], list[str]]()
    for name, one in comparison.findings.items():
        for pair in one.pairs:
            if pair.apart and pair.difference.value is not None:
                ends = (pair.first, pair.second) if pair.difference.value > 0 else (pair.second, pair.first)
                above.setdefault(ends, []).append(name)
    tests = plural(comparison.tests, "test")
    if not above:
        return (
            f"In no single finding are two models told apart, after correction for {tests}; that does not show that "
            "they are alike."
        )
    told = "; ".join(f"{first} is above {second} in {listed(names)}" for (first, second), names in above.items())
    return f"Of single findings, after correction for {tests}: {told}."


def _controls(compared: FindingsCompared) -> list[str]:
    """Return sentences on the controls of all models and findings, the most serious first."""
    names, models = list(compared.comparison.findings), list(compared.candidates)
    said = []
    for kind in FINDINGS:
        of = {m: [n for n in names if compared.controls_of(n, m)["finding"] == kind] for m in models}
        if of := {model: found for model, found in of.items() if found}:
            said.append(_OF_CONTROLS[kind].format(of_models(of, dict.fromkeys(models, len(names)))))
    return said
