"""Facts about the results of a run: figures with intervals, comparisons, limitations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from chestxray.evaluation.figure_format import with_interval
from chestxray.recipe import EXPLANATIONS, PIXEL_EXPLANATIONS
from chestxray.report import calibration_wording, formatting
from chestxray.report.facts.extras import listing, mapping
from chestxray.report.formatting import ordered, plural
from chestxray.report.limitations import cautions
from chestxray.report.limitations import summary as in_words
from chestxray.runs.run_folder import Run

_DIAGNOSTIC = ("sensitivity", "specificity", "precision")


def summary(run: Run) -> list[str]:
    """A summary of the run in two sentences."""
    return [in_words(run)]


def stage(run: Run) -> list[str]:
    """Whether the study is development, evaluation or both."""
    train, test = (int((run.used["split"] == split).sum()) for split in ("train", "test"))
    where = "of other data than it was trained on" if tests_elsewhere(run) else "held out of the same data"
    developed = f"Development on {plural(train, 'image')} and evaluation" if train else "Evaluation alone,"
    return [f"{developed} on {plural(test, 'image')} {where}."]


def measures(run: Run) -> list[str]:
    """The measures that were computed, and the class or average they refer to."""
    names = "; ".join(formatting.title(name) for name in ordered(run.metrics["test"]))
    about = f"about {run.positive}" if run.positive else "means over the classes, one against the rest"
    return [f"{names}. Sensitivity, specificity, precision, F1, AUROC and AUPRC are {about}."]


def uncertainty(run: Run) -> list[str]:
    """The method of the confidence intervals."""
    interval = run.metrics.get("interval", {})
    if not interval.get("method"):
        return []
    count = interval.get("replicates")
    replicates = f", {count:,} replicates" if count else ""
    return [f"{run.level} intervals: {interval['method']}{replicates}. No test of significance was made."]


def performance(run: Run) -> list[str]:
    """Figures on the whole test set, and its calibration."""
    names = ("auroc", "auprc", "accuracy", "balanced_accuracy", "f1_macro", "mcc", "brier", "ece")
    calibration = calibration_wording.sentences(run.metrics.get("calibration"), run.positive, run.level)
    return [figures_of(run, names), *calibration]


def diagnostic(run: Run) -> list[str]:
    """Sensitivity, specificity and precision, of each class if there are more than two."""
    if run.positive:
        return [f"{run.positive}: {figures_of(run, _DIAGNOSTIC)}"]
    return [
        f"{label}: {', '.join(f'{name} {with_interval(mapping(item, name))}' for name in _DIAGNOSTIC if name in item)}."
        for label, item in run.metrics["per_class"].items()
    ]


def errors(run: Run) -> list[str]:
    """Number of incorrect predictions, and the most frequent confusions."""
    counts = np.asarray(run.metrics["confusion"]["counts"])
    classes = run.metrics["confusion"]["classes"]
    wrong = counts - np.diag(np.diag(counts))
    lines = [f"{int(wrong.sum()):,} of {plural(int(counts.sum()), 'test image')} wrong."]
    worst = sorted(np.argwhere(wrong > 0).tolist(), key=lambda pair: -wrong[pair[0], pair[1]])[:3]
    if worst:
        most = "; ".join(f"{classes[i]} taken for {classes[j]}, {wrong[i, j]:,}" for i, j in worst)
        lines.append(f"Most often: {most}.")
    return lines


def internal(run: Run) -> list[str]:
    """Figures on the test, if it comes from the same data as the training images."""
    if tests_elsewhere(run):
        return []
    images = plural(run.metrics["rows"], "held-out image")
    return [f"{images} of {run.data_name}: {figures_of(run, ('auroc', 'accuracy'))}"]


def external(run: Run) -> list[str]:
    """Figures on the test, if it comes from other data, and of later evaluations on other data."""
    lines = []
    if tests_elsewhere(run):
        names = ", ".join(sorted(set(run.used.loc[run.used["split"] == "test", "source"])))
        images = plural(run.metrics["rows"], "image")
        lines.append(f"{images} of {names}: {figures_of(run, ('auroc', 'accuracy'))}")
    fall = mapping(mapping(mapping(run, "generalisation_gap"), "figures"), "auroc")
    if fall:
        inside, lost = with_interval(mapping(fall, "internal")), with_interval(mapping(fall, "gap"))
        lines.append(f"AUROC on the test of the training run {inside}; less by {lost} here.")
    later = {name: mapping(metrics, "test").get("auroc") for name, metrics in run.external.items()}
    return [
        *lines,
        *(
            f"Evaluated later on {name}: AUROC {with_interval(figure)}.{seen(run.external_audits.get(name, {}))}"
            for name, figure in later.items()
            if figure
        ),
    ]


def seen(audit: Mapping[str, Any]) -> str:
    """Return how much of an external test set the model was trained on, and whether copies were searched for."""
    kinds = {"exact_duplicates": "image", "near_duplicates": "edited copy", "patients": "patient"}
    counts = {kind: len(audit.get(kind, {}).get("across_splits", [])) for kind in kinds}
    said = ""
    if audit.get("on_leak") == "ignore" and any(counts.values()):
        each = (
            plural(count, kinds[kind], "edited copies" if kind == "near_duplicates" else "")
            for kind, count in counts.items()
            if count
        )
        said = f" The model was trained or chosen on {', '.join(each)} of it, which were kept: too good."
    searched = audit.get("near_duplicates", {}).get("searched")
    return said if searched else f"{said} Edited copies of its training images were not, or not all, looked for."


def by_source(run: Run) -> list[str]:
    """AUROC by data source."""
    found = _aurocs(mapping(run, "by_source"))
    return [f"AUROC by source: {found}."] if found else []


def groups_compared(run: Run) -> list[str]:
    """AUROC by groups of people, such as sex, if the recipe names such columns."""
    # A column with a single value allows no comparison.
    columns = {column: groups for column, groups in mapping(run, "by_group").items() if len(groups) > 1}
    return [f"AUROC by {column}: {each}." for column in columns if (each := _aurocs(mapping(columns, column)))]


def clusters(run: Run) -> list[str]:
    """The clusters (patients) that are resampled for the intervals."""
    patients = run.patients(split="test")
    if patients.known is None:
        return []
    alone = f"; {plural(patients.unknown, 'image')} of unknown patients one by one" if patients.unknown else ""
    return [f"Intervals draw the {plural(patients.known, 'test patient')} with all their images{alone}."]


def robustness(run: Run) -> list[str]:
    """AUROC of the control models, by source and by group."""
    controls = mapping(run, "controls")
    tested = listing(controls, "controls")
    each = ", ".join(
        f"{item.get('title', item.get('name'))} {with_interval(mapping(item, 'auroc'))}" for item in tested
    )
    own = with_interval(run.metrics["test"].get("auroc") or {})
    beside = [f"Controls that see no lungs or little of them, AUROC: {each}; the model {own}."] if each else []
    beside += [str(controls["verdict"])] if controls.get("verdict") else []
    return [*beside, *by_source(run), *groups_compared(run)]


def heatmaps(run: Run) -> list[str]:
    """The method and number of heat maps, or the reason why there are none."""
    index = run.heatmaps
    if index.get("images"):
        images = plural(len(index["images"]), "test image")
        method = index.get("method", "method not recorded")
        published = "method" in index and method not in EXPLANATIONS
        at = "" if method in PIXEL_EXPLANATIONS else f" at layer {index.get('layer')}"
        where = ", of a plugin," if published else at
        return [f"Heat maps ({method}){where} of {images}."]
    return [f"None: {index['reason']}"] if index.get("reason") else []


def poor_input(run: Run) -> list[str]:
    """Proportions of images that the model refuses, and that it does not abstain from."""
    refusal = mapping(run, "refusal")
    lines = []
    for key, what in (("test", "test radiographs"), ("others", "pictures that are no radiographs")):
        part = mapping(refusal, key)
        if "refused" in part:
            count = part.get("pictures", "not recorded")
            lines.append(f"Refused of {count} {what}: {with_interval(mapping(part, 'refused'))}.")
    abstention = mapping(mapping(run, "abstention"), "test")
    if "answered" in abstention:
        lines.append(
            f"Share of test images answered, not abstained from: {with_interval(mapping(abstention, 'answered'))}."
        )
    return lines


def limits(run: Run) -> list[str]:
    """The limitations of the results, as in the report."""
    return [f"{caution.title}. {run.shorten_in(caution.text)}" for caution in cautions(run)]


def beside_guess(run: Run) -> list[str]:
    """The accuracy, and that of always predicting the most common class."""
    counts = np.asarray(run.metrics["confusion"]["counts"], dtype=float).sum(axis=1)
    accuracy = run.metrics["test"].get("accuracy")
    if not accuracy or not counts.sum():
        return []
    guess = counts.max() / counts.sum()
    return [f"Accuracy {with_interval(accuracy)}; always naming the commonest class gets {guess:.3f}."]


def tests_elsewhere(run: Run) -> bool:
    """Return whether the test comes from separate test data, or the folder is an external evaluation."""
    return bool(run.recipe.test_data) or "generalisation_gap" in run.extras


def figures_of(run: Run, names: tuple[str, ...]) -> str:
    """Return those figures of the test that are known of `names`, with their intervals."""
    known = run.metrics["test"]
    return (
        "; ".join(f"{formatting.title(name)} {with_interval(known[name])}" for name in names if known.get(name)) + "."
    )


def _aurocs(parts: Mapping[str, Any]) -> str:
    each = {name: mapping(mapping(parts, name), "test").get("auroc") for name in parts}
    return ", ".join(f"{name} {with_interval(figure)}" for name, figure in each.items() if figure)


FACTS = (
    summary, stage, measures, uncertainty, performance, diagnostic, errors, internal, external, by_source,
    groups_compared, clusters, robustness, heatmaps, poor_input, limits, beside_guess,
)  # fmt: skip
