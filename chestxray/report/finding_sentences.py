"""What was measured of findings, in sentences for the report, the command and a notebook."""

from __future__ import annotations

from typing import Any

from chestxray.evaluation.figure_format import in_sentence, with_interval
from chestxray.evaluation.paired.p_value_function import ALPHA
from chestxray.report.caution import Caution
from chestxray.report.formatting import plural, title
from chestxray.report.limitations import MOST_SAID, TRAINING_RUN, of_data, turned
from chestxray.runs.finding_results import GAPS
from chestxray.runs.run_folder import Run
from chestxray.storage import result_files


def summary(run: Run) -> tuple[str, ...]:
    """Return what was measured in sentences, which the command prints as well."""
    found = run.findings_evaluation
    rows = int((run.index.rows["split"] == "test").sum())
    if not found.scored:
        return (f"None of the {len(found.findings)} findings has enough patients in the test to be scored.",)
    mean = with_interval(found.test["auroc"].to_json(), 2, level=run.level)
    said = [
        f"On {plural(rows, 'test image')} of {found.patients}, the mean AUROC of "
        f"{plural(len(found.scored), 'finding')} is {mean}."
    ]
    aurocs = {name: one.test["auroc"] for name, one in found.findings.items() if one.test}
    known = {name: one.value for name, one in aurocs.items() if one.value is not None}
    ranked = sorted(known, key=lambda name: -known[name])
    if len(ranked) > 1:
        first, last = (f"{name} ({with_interval(aurocs[name].to_json(), 2)})" for name in (ranked[0], ranked[-1]))
        said.append(f"It is highest for {first} and lowest for {last}.")
    chance = [name for name in ranked if (aurocs[name].low or 0) <= 0.5]
    if chance:
        said.append(f"The AUROC is not shown to be above 0.5, that of chance, for {', '.join(chance)}.")
    if unscored := [name for name, one in found.findings.items() if one.not_scored]:
        said.append(
            f"Not scored, as too few patients of the test have it, or are known to lack it: {', '.join(unscored)}."
        )
    said.append("This holds for patients like those of the test; at another hospital the figures may differ.")
    return tuple(said)


def finding_gaps(run: Run) -> dict[str, Any]:
    """Return the contents of ``finding_gaps.json``; empty where no column has two groups."""
    found: dict[str, Any] = result_files.read_if_any(run.folder / GAPS)
    return found


def whole_cautions(run: Run) -> list[str]:
    """Return what weakens the result of all findings; what weakens one finding stands on its own page."""
    return [f"{one.title}. {one.text}" for one in of_whole(run)]


def of_whole(run: Run) -> list[Caution]:
    """Return the cautions that `whole_cautions` words."""
    return [*_drop(run), *serious(run), *_alike(run), *_groups(run), *_inherited(run)]


def serious(run: Run) -> list[Caution]:
    """Return the serious cautions about the data of a run of findings and the controls of its findings."""
    said = [one for one in of_data(run) if one.weight == "serious"]
    strong, part = (_where_controls_find(run, kind) for kind in ("shortcut", "part"))
    texts = [
        f"The scores of {', '.join(strong)} cannot be taken as evidence that disease is recognised: as much could be "
        "learnt from what shows no disease, whether or not the model did so.",
        f"Part of the scores of {', '.join(part)} may come from what shows no disease.",
    ]
    if strong or part:
        text = " ".join(text for text, names in zip(texts, (strong, part), strict=True) if names)
        said.append(Caution("serious", "Shortcuts tell some findings apart", text))
    return said


def _where_controls_find(run: Run, kind: str) -> list[str]:
    """Return the findings of which the controls found `kind`, one of `verdict.FINDINGS`."""
    return [name for name, one in run.findings.items() if one.controls.get("finding") == kind]


def _alike(run: Run) -> list[Caution]:
    names = _where_controls_find(run, "likeness")
    text = f"Most of the scores of {', '.join(names)} can be reached without a detailed view of the lungs."
    return [Caution("note", "A blurred or blanked image does nearly as well", text)] if names else []


def lower_here(run: Run) -> list[str]:
    """Return the findings whose AUROC is lower than on the run's own test, corrected over all that are compared."""
    compared = run.extras.get("generalisation_gap", {}).get("findings", {})
    return [
        name
        for name, item in compared.items()
        if item["p_holm"] is not None and item["p_holm"] < ALPHA and item["gap"]["value"] > 0
    ]


def _drop(run: Run) -> list[Caution]:
    """Return a caution if the mean, or a finding, is worse on these data than on the run's own test."""
    lost = run.extras.get("generalisation_gap", {}).get("figures", {}).get("auroc")
    said = []
    if lost and (lost["gap"]["low"] or 0) > 0:
        inside, here = (f"{lost[side]['value']:.2f}" for side in ("internal", "external"))
        of = plural(len(run.extras["generalisation_gap"]["findings"]), "finding")
        said.append(
            f"The mean AUROC of the {of} that both tests score is {here} here and was {inside} on the run's own test: "
            f"less by {in_sentence(lost['gap'])}."
        )
    if names := lower_here(run):
        said.append(
            f"The AUROC of {', '.join(names)} is lower here than on the run's own test, also after correction for all "
            "findings compared."
        )
    return [Caution("serious", "Worse here than where it was trained", " ".join(said))] if said else []


def _groups(run: Run) -> list[Caution]:
    worst = finding_gaps(run).get("worst")
    if not worst:
        return []
    listed = "; ".join(
        f"{title(one['figure'])} of {one['finding']} by {one['column']}, {one['group']} less than the others by "
        f"{in_sentence(turned(one))}"
        for one in sorted(worst, key=lambda one: one["p_holm"])[:MOST_SAID]
    )
    text = f"{listed}. This remains after correction for all groups and findings compared."
    return [Caution("note", "Worse for some than for others", text)]


def _inherited(run: Run) -> list[Caution]:
    found = run.extras.get(TRAINING_RUN, {}).get("cautions", [])
    return [Caution(item["weight"], f"In its training: {item['title']}", item["text"]) for item in found]
