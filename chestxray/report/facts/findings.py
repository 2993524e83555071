"""Facts about a run of findings, where they differ from those of classes.

One finding is a task of two classes, and the folder of each scored one is a run of two classes: what holds of one
finding is said by the facts of its own run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from chestxray.data.findings import ABSENT, PRESENT, SOFT, WORDS, Choice
from chestxray.data.index import SPLITS
from chestxray.evaluation.decision.temperature_scaling import NONE
from chestxray.evaluation.figure_format import span, with_interval
from chestxray.report import formatting
from chestxray.report.facts import data, model, results
from chestxray.report.facts.extras import mapping
from chestxray.report.finding_sentences import summary as in_sentences
from chestxray.report.finding_sentences import whole_cautions
from chestxray.report.formatting import ordered, plural
from chestxray.report.limitations import cautions
from chestxray.runs.run_folder import Run

_TREATED: dict[Choice, str] = {
    "ignore": "as if they were not known",
    "positive": "as if they were present",
    "negative": "as if they were absent",
    "soft": f"trained on with the target {SOFT:g}, between absent and present, and not tested on",
}


def counts(run: Run) -> dict[str, dict[str, list[int]]]:
    """Return of each finding, by split, the number of used images in which it is in each state of `WORDS`."""
    states, splits = run.index.states, run.index.rows["split"].to_numpy()
    return {
        name: {
            split: [int(((states[:, k] == state) & (splits == split)).sum()) for state in WORDS]
            for split in used_splits(run)
        }
        for k, name in enumerate(run.classes)
    }


def used_splits(run: Run) -> list[str]:
    """Return the splits that have images: an external test has no training."""
    known = set(run.used["split"])
    return [split for split in SPLITS if split in known]


def summary(run: Run) -> list[str]:
    """A summary of the run in sentences."""
    return [" ".join(in_sentences(run))]


def method(run: Run) -> list[str]:
    """The kind of method and the findings it answers for."""
    return [
        f"Deep learning: {run.recipe.model}, a network that says of a chest radiograph which of "
        f"{plural(len(run.classes), 'finding')} it shows ({', '.join(run.classes)})."
    ]


def labels(run: Run) -> list[str]:
    """The findings, as named in the data, and what is done with uncertain and unknown ones."""
    return [
        f"Of each image and finding, as labelled in {run.data_name}: {', '.join(WORDS.values())}. "
        f"Findings: {', '.join(run.classes)}.",
        uncertain(run),
        "What is not known of an image has no part in training and in no figure.",
    ]


def uncertain(run: Run) -> str:
    """What was done with uncertain findings, in a sentence."""
    policy = run.index.uncertain
    own = "".join(f"; {name} {_TREATED[choice]}" for name, choice in (policy.own or {}).items())
    return f"Uncertain findings: {_TREATED[policy.general]}{own}."


def missing(run: Run) -> list[str]:
    """Missing patients, unreadable files, and how much is not known of the findings."""
    used = run.index.rows["split"].isin(SPLITS).to_numpy()
    silent = int(np.isnan(run.index.truth[used]).sum())
    pairs = f"{silent:,} of {int(used.sum()) * len(run.classes):,} pairs of an image and a finding"
    return [*data.missing(run), f"No truth to test on in {pairs}; none was made up."]


def test_labels(run: Run) -> list[str]:
    """Number of test images in which each finding is present, absent, uncertain and not known."""
    return [f"Labels of the test images: {_of_split(run, 'test')}."]


def classes_by_split(run: Run) -> list[str]:
    """The same of each split."""
    return [f"{split.capitalize()}: {_of_split(run, split)}." for split in used_splits(run)]


def _of_split(run: Run, split: str) -> str:
    return "; ".join(
        f"{name} {', '.join(f'{word} {count:,}' for word, count in zip(WORDS.values(), of[split], strict=True))}"
        for name, of in counts(run).items()
    )


def sample(run: Run) -> list[str]:
    """Size of the test set, which findings are scored on it, and the interval of the mean AUROC."""
    found = run.findings_evaluation
    said = [f"Tested on {plural(found.rows, 'image')} of {found.patients}; each finding where it is known."]
    if found.scored:
        said.append(f"It gives the mean AUROC an interval of {span(found.test['auroc'].to_json())}.")
    said += [f"{name} is not scored: {one.not_scored}." for name, one in found.findings.items() if one.not_scored]
    return [*said, "The run computed no sample size beforehand."]


def shift(run: Run) -> list[str]:
    """Prevalence of each finding, and proportions of data sets, in the training and in the test images."""
    known = set(run.used["split"])
    if not {"train", "test"} <= known:
        return []
    each = ", ".join(f"{name} {_share(of['train'])} and {_share(of['test'])}" for name, of in counts(run).items())
    return [
        f"Labelled present, of the images labelled present or absent, in training and in test: {each}.",
        *data.shift(run)[1:],
    ]


def _share(numbers: list[int]) -> str:
    of = dict(zip(WORDS, numbers, strict=True))
    known = of[PRESENT] + of[ABSENT]
    return f"{of[PRESENT] / known:.1%}" if known else "not known"


def imbalance(run: Run) -> list[str]:
    """How rare each finding is in training, and how the loss handles it."""
    if not (run.used["split"] == "train").any():
        return []
    each = ", ".join(f"{name} {_share(of['train'])}" for name, of in counts(run).items())
    return [
        f"Labelled present in training, of the images labelled present or absent: {each}. Loss: {model.in_loss(run)}."
    ]


def output(run: Run) -> list[str]:
    """The output of the model and its calibration."""
    said = (
        f"A probability for each of {', '.join(run.classes)}, each by itself (sigmoid), from the raw pixels; scaling "
        "is inside the saved model."
    )
    if not mapping(run, "decision"):
        return [said]
    rules = run.finding_decision.findings
    plain = [name for name, decision in rules.items() if decision.calibration.method == NONE]
    if len(plain) == len(rules):
        return [said, "No finding is calibrated."]
    return [said, f"Calibrated one by one, but for {', '.join(plain)}." if plain else "Calibrated one by one."]


def thresholds(run: Run) -> list[str]:
    """The threshold of each finding and how it was chosen, and when the model abstains."""
    if not mapping(run, "decision"):
        return ["Thresholds differ between the models that were tested; the report of each finding has its rule."]
    said = []
    for decision in run.finding_decision.findings.values():
        limit = decision.coverage
        said.append(decision.words + (f" May abstain: promised coverage {limit:g}." if limit is not None else ""))
    return said


def measures(run: Run) -> list[str]:
    """The measures that were computed, and what they refer to."""
    names = "; ".join(formatting.title(name) for name in ordered(run.metrics["test"]))
    return [
        f"{names}. Each is of one finding as a task of two classes, absent and present, on the images in which it is "
        "known; in the mean every scored finding counts alike."
    ]


def performance(run: Run) -> list[str]:
    """The means over the findings, the AUROC of each, and the film as a whole."""
    found = run.findings_evaluation
    lines = []
    if found.scored:
        names = ("auroc", "auprc", "balanced_accuracy", "f1", "brier", "ece")
        lines.append(f"Mean of {plural(len(found.scored), 'finding')}: {results.figures_of(run, names)}")
    for name, one in found.findings.items():
        of = f"{one.known.positive:,} of {plural(one.known.rows, 'known test image')} have it"
        figures = "; ".join(
            f"{formatting.title(figure)} {with_interval(one.test[figure].to_json())}"
            for figure in ("auroc", "auprc")
            if figure in one.test
        )
        lines.append(f"{name}: {figures}; {of}." if figures else f"{name}: not scored, {one.not_scored}; {of}.")
    exact = found.exact_match
    if exact.figure.value is not None:
        lines.append(
            f"Every scored finding decided rightly: {with_interval(exact.figure.to_json())} of "
            f"{plural(exact.rows, 'image')} in which all are known."
        )
    if found.any_finding.test:
        lines.append(f"Any finding against none: AUROC {with_interval(found.any_finding.test['auroc'].to_json())}.")
    return lines


def internal(run: Run) -> list[str]:
    """The mean AUROC on the test, if it comes from the same data as the training images."""
    found = run.findings_evaluation
    if results.tests_elsewhere(run) or not found.scored:
        return []
    images = plural(found.rows, "held-out image")
    return [f"{images} of {run.data_name}, mean of {plural(len(found.scored), 'finding')}: {_auroc(run)}."]


def external(run: Run) -> list[str]:
    """The AUROC of each finding on the test, if it comes from other data, and of later evaluations on other data."""
    lines = []
    if results.tests_elsewhere(run):
        names = ", ".join(sorted(set(run.used.loc[run.used["split"] == "test", "source"])))
        lines.append(f"{plural(run.findings_evaluation.rows, 'image')} of {names}: {_aurocs(run)}.")
    for path in sorted(run.folder.glob("external/*/metrics.json")):
        other = Run(path.parent)
        seen = results.seen(run.external_audits.get(path.parent.name, {}))
        lines.append(f"Evaluated later on {path.parent.name}: {_aurocs(other)}.{seen}")
    return lines


def _auroc(run: Run) -> str:
    return f"AUROC {with_interval(run.findings_evaluation.test['auroc'].to_json())}"


def _aurocs(run: Run) -> str:
    found = run.findings_evaluation
    if not found.scored:
        return "no finding has enough patients to be scored"
    each = ", ".join(f"{name} {with_interval(found.findings[name].test['auroc'].to_json())}" for name in found.scored)
    return f"mean {_auroc(run)}; by finding {each}"


def poor_input(run: Run) -> list[str]:
    """Proportions of images that the model refuses, and, finding by finding, that it does not abstain from."""
    shared = results.poor_input(run)
    own = [f"{name}: {line}" for name, one in run.findings.items() for line in results.poor_input(one)]
    return [*shared, *(line for line in own if line.partition(": ")[2] not in shared)]


def limits(run: Run) -> list[str]:
    """What weakens all findings, and what is serious for one of them."""
    shared = whole_cautions(run)
    own = [
        f"{name}: {caution.title}. {caution.text}"
        for name, one in run.findings.items()
        for caution in cautions(one)
        if caution.weight == "serious" and f"{caution.title}. {caution.text}" not in shared
    ]
    return [run.shorten_in(line) for line in (*shared, *own)]


def _of_each(fact: Callable[[Run], list[str]]) -> Callable[[Run], list[str]]:
    """Return the same fact of a run of findings: that of each scored finding, with its name."""

    def of_each(run: Run) -> list[str]:
        return [
            line if line.startswith(f"{name}: ") else f"{name}: {line}"
            for name, one in run.findings.items()
            for line in fact(one)
        ]

    of_each.__name__, of_each.__doc__ = fact.__name__, fact.__doc__
    return of_each


FACTS = (
    summary, method, labels, missing, test_labels, classes_by_split, sample, shift, imbalance, output, thresholds,
    measures, performance, internal, external, poor_input, limits,
    *map(_of_each, (
        model.recalibration, results.diagnostic, results.errors, results.by_source, results.groups_compared,
        results.robustness, results.beside_guess,
    )),
)  # fmt: skip
