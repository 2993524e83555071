"""How common classes or findings are: `chestxray predict --prevalence` and ``--estimate-prevalence``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chestxray.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from chestxray.evaluation.clinical.prevalence_shift import Known
    from chestxray.evaluation.decision.finding_rule import Rule
    from chestxray.evaluation.decision.rule import Decision
    from chestxray.evaluation.predictions import Predictions
    from chestxray.inference.answer import Adjustment

log = logging.getLogger("chestxray")


def by_finding(rule: Rule) -> dict[str, Decision]:
    """Return the rules of one class an image in `rule`: by finding, or itself under ``""``."""
    from chestxray.evaluation.decision.finding_rule import FindingDecision

    return dict(rule.findings) if isinstance(rule, FindingDecision) else {"": rule}


def adjustment(decision: Rule, run: Path, prevalence: float) -> Adjustment:
    """Return a function that adjusts probabilities to `prevalence`, the proportion (0 to 1) of the positive class.

    Raises:
        InputError: there are no two classes, `prevalence` is out of range, or it is not known of validation.
    """
    import numpy as np

    from chestxray.evaluation.clinical.prevalence_shift import Known, adjusted
    from chestxray.evaluation.decision.finding_rule import FindingDecision
    from chestxray.inference.answer import validation_of

    if isinstance(decision, FindingDecision):
        raise InputError(
            f"prevalence is for two classes, and each finding has one of its own. Received: {prevalence:g}, with the "
            f"findings {', '.join(decision.classes)}."
        )
    if decision.positive is None:
        raise InputError(f"prevalence is for two classes. Received: {prevalence:g}, with {len(decision.classes)}.")
    if not 0 < prevalence < 1:
        raise InputError(f"prevalence must be a share above 0 and below 1. Received: {prevalence:g}.")
    known = Known.of(validation_of(run, decision, "prevalence"))
    if known is None:
        raise InputError(f"The validation of {run} lacks a class, so that its prevalence is not known.")
    after = np.where(np.arange(2) == decision.classes.index(decision.positive), prevalence, 1 - prevalence)
    return lambda probabilities: adjusted(probabilities, known.proportions, after)


def judges(run: Path, rule: Rule) -> dict[str, tuple[Decision, Predictions]]:
    """Return the rules of `by_finding`, each with its decided validation predictions in the folder `run`.

    Raises:
        InputError: it has no validation predictions.
    """
    from chestxray.evaluation.decision.finding_rule import FindingDecision
    from chestxray.inference.answer import findings_validation_of, validation_of

    if not isinstance(rule, FindingDecision):
        return {"": (rule, rule.applied(validation_of(run, rule, "estimate-prevalence")))}
    validation = findings_validation_of(run, rule, "estimate-prevalence")
    return {name: (one, one.applied(validation.of_finding(name))) for name, one in rule.findings.items()}


def show(judged: Mapping[str, tuple[Decision, Predictions]], seen: Sequence[np.ndarray]) -> None:
    """Print the estimated proportions of the classes, or findings, among images, and the assumption made.

    `judged` as `judges` gives it; `seen`: the probabilities of the images, each float (rows, classes). A finding with
    too few patients in validation is not estimated.
    """
    import numpy as np

    from chestxray.cli.output import table
    from chestxray.evaluation.clinical.prevalence_shift import ASSUMPTION, Known

    probabilities = np.concatenate([*seen]).astype(np.float64) if seen else np.empty((0, 0))
    rows: list[tuple[str, ...]] = []
    left = []
    for column, (finding, (decision, validation)) in enumerate(judged.items()):
        known = Known.of(validation) if decision.chosen and len(probabilities) > 1 else None
        if known is None:
            left.append(finding)
            continue
        own = probabilities
        if finding:
            present = probabilities[:, [column]]
            own = np.where(np.array(decision.classes) == finding, present, 1 - present)
        found = _estimated(decision, known, own)
        rows += [(name, *shares) for name, shares in found.items() if not finding or name == finding]
    if left:
        what = ", ".join(filter(None, left)) or "the classes"
        because = "validation has too few patients of each kind, or there are no images"
        log.warning("It is not estimated how common these are, since %s: %s.", because, what)
    if not rows:
        return
    heads = ("finding" if all(judged) else "class", "validation")
    table((*heads, "here, by the probabilities (95% interval)", "here, by the decisions"), rows, error=True)
    click.echo(
        f"Shares of {'findings' if all(judged) else 'the classes'} among {len(probabilities):,} images, each counted "
        f"as a patient, without labels. {ASSUMPTION} Estimates that disagree say that they are not.",
        err=True,
    )


def _estimated(decision: Decision, known: Known, probabilities: np.ndarray) -> dict[str, tuple[str, ...]]:
    """Return of each class its share of validation and the estimates of it among `probabilities`, as text."""
    import numpy as np

    from chestxray.cli.output import quoted
    from chestxray.evaluation.clinical.prevalence_shift import estimate

    found = estimate(probabilities, decision.decided(probabilities), np.arange(len(probabilities)), known)
    return {
        name: (
            f"{known.proportions[number]:.3f}",
            *(quoted(way[number].to_json()) for way in (found.maximisation, found.confusion)),
        )
        for number, name in enumerate(decision.classes)
    }
