"""Cautions about predictions on new images: refusal, validation size, sensitivity, calibration, abstention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chestxray.data.audit import FEWEST_OF_A_CLASS
from chestxray.data.splitting import SMALLEST_VALIDATION
from chestxray.evaluation.figure_format import in_sentence, with_interval
from chestxray.report.calibration_wording import direction
from chestxray.report.caution import Caution
from chestxray.report.formatting import plural, value_of
from chestxray.runs.run_folder import Run

#: Proportions of non-radiographs that are predicted instead of refused: of one kind, from which that kind is
#: listed; of one kind, and of all kinds together, from which the caution is serious.
LET_THROUGH, MOST_OF_A_KIND, MANY_OF_ALL = 0.1, 0.5, 0.2
#: Proportion of refused radiographs from which the caution is serious.
REFUSED = 0.2
#: Expected calibration error from which a caution is given, and the smallest change that is more than rounding.
MISCALIBRATED, CHANGED = 0.1, 0.005
#: Acceptable range of the calibration slope, and the acceptable distance of the intercept from 0. A caution is
#: given outside them if the confidence interval excludes the ideal value too.
SLOPES, INTERCEPT = (0.8, 1.25), 0.3


def refusal(run: Run) -> list[Caution]:
    """Return cautions about non-radiographs that the model accepts and radiographs that it refuses."""
    found, decision = run.extras.get("refusal"), run.extras.get("decision")
    if not found:
        # A folder without a decision rule, or of an ensemble, has no single model that new images are given to.
        if not decision or run.is_ensemble:
            return []
        text = (
            "Whatever it is shown, noise, a photograph, an inverted or a turned film, it answers as if that were "
            "a chest radiograph, and may be sure of it."
        )
        return [Caution("serious", "It refuses nothing", text)]
    return [*_let_through(found), *_capped(found), *_refused_films(found)]


def validation(run: Run) -> list[Caution]:
    """Return a caution if the validation set is small or has few images of a class."""
    each = run.counts["validation"]
    total, few = int(each.sum()), each[each < FEWEST_OF_A_CLASS]
    if not total or (total >= SMALLEST_VALIDATION and few.empty):
        return []
    listed = ", ".join(f"{name} ({count})" for name, count in few.head(8).items())
    classes = f"; classes with fewer than {FEWEST_OF_A_CLASS}: {listed}" if listed else ""
    text = (
        f"{plural(total, 'image')} chose what was kept: epoch, calibration, threshold and what is refused{classes}. "
        "With other images these might be others."
    )
    serious = total < SMALLEST_VALIDATION or bool((few == 0).any())
    return [Caution("serious" if serious else "note", "Few validation images", text)]


def sensitivity(run: Run) -> list[Caution]:
    """Return a caution if the requested sensitivity was not reached on the test or is not guaranteed."""
    wanted = run.recipe.sensitivity
    points = (run.extras.get("operating_points") or {}).get("points", [])
    if wanted is None or not points:
        return []
    promise = (run.extras.get("decision") or {}).get("promise") or {}
    # The guarantee is per patient: each patient has the same weight.
    found = points[0]["test"].get("sensitivity_of_patients") or points[0]["test"]["sensitivity"]
    missed = (found["high"] or 1) < wanted
    if promise.get("confidence") and missed:
        text = (
            f"A sensitivity of at least {wanted:g} was promised with confidence {promise['confidence']:g} for patients "
            f"like those of validation; on the test it is {in_sentence(found)}. The test's patients are others, or "
            "this is the exception that the confidence allows."
        )
        return [Caution("serious", "A promised sensitivity was not kept", text)]
    if missed:
        text = f"{wanted:g} was asked for on validation; on the test images it is {in_sentence(found)}."
        return [Caution("note", "The sensitivity asked for was not reached", text)]
    if promise and not promise["confidence"]:
        text = (
            f"{wanted:g} was asked for on validation alone. About half of such thresholds fall short on other "
            "patients: --confidence promises it."
        )
        return [Caution("note", "No sensitivity is promised", text)]
    return []


def probabilities(run: Run) -> list[Caution]:
    """Return a caution if the probabilities are miscalibrated on the test images."""
    found = run.extras.get("calibration") or {}
    parts = []
    measures = run.metrics.get("calibration") or {}
    slope, intercept = measures.get("slope") or {}, measures.get("intercept") or {}
    if _beyond(slope, *SLOPES):
        parts.append(f"Calibration slope {in_sentence(slope)}: {direction(slope)}.")
    if _beyond(intercept, -INTERCEPT, INTERCEPT):
        often = "more" if intercept["value"] > 0 else "less"
        parts.append(
            f"Calibration intercept {in_sentence(intercept)}: {run.positive} is {often} frequent than they say."
        )
    off = value_of(run.metrics["test"].get("ece"))
    if off is not None and off >= MISCALIBRATED:
        parts.append(f"On average they are off by {100 * off:.0f} points of 100 (expected calibration error).")
    before, after = ((found.get("test") or {}).get(when) or {} for when in ("before", "after"))
    for name, title in (("ece", "expected calibration error"), ("brier", "Brier score")):
        old, new = value_of(before.get(name)), value_of(after.get(name))
        low = (after.get(name) or {}).get("low")
        if old is not None and new is not None and low is not None and low > old + CHANGED:
            parts.append(f"Calibration made them worse on the test images: {title} {old:.3f} before, {new:.3f} after.")
            break
    if found.get("at_bound"):
        parts.append("Their temperature stands at its bound: validation is too small or too easy to learn it from.")
    return [Caution("note", "Probabilities are miscalibrated", " ".join(parts))] if parts else []


def _beyond(figure: Mapping[str, Any], least: float, most: float) -> bool:
    """Return whether a measure is outside `least` to `most` and its interval excludes the ideal value (0 or 1)."""
    value, low, high = (figure.get(name) for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return False
    well = 0.0 if least < 0 else 1.0
    return (value < least and high < well) or (value > most and low > well)


def abstention(run: Run) -> list[Caution]:
    """Return a caution if the conformal coverage guarantee is vacuous or was not met on the test images."""
    found = run.extras.get("abstention") or {}
    if not found:
        return []
    promised = f"{found['coverage']:g}"
    if found["empty_promise"]:
        needed = f" {found['patients_needed']:,} patients would be needed." if "patients_needed" in found else ""
        text = (
            f"Validation is too small to promise a coverage of {promised}: it names every class of every image.{needed}"
        )
        return [Caution("note", "It always abstains", text)]
    kept = found["test"].get("coverage_of_patients") or found["test"]["coverage"]
    if kept["high"] is None or kept["high"] >= found["coverage"]:
        return []
    text = f"The true class is among those named for {in_sentence(kept)} of the test images; {promised} was promised."
    return [Caution("note", "The promised coverage was not kept", text)]


def _let_through(found: Mapping[str, Any]) -> list[Caution]:
    through = {kind: 1 - item["refused"]["value"] for kind, item in found.get("by_kind", {}).items()}
    named = sorted((kind for kind in through if through[kind] >= LET_THROUGH), key=lambda kind: -through[kind])
    if not named:
        return []
    pictures = {kind: found["by_kind"][kind]["pictures"] for kind in named}
    listed = ", ".join(f"{kind} ({round(through[kind] * pictures[kind])} of {pictures[kind]})" for kind in named)
    of_all = 1 - found["others"]["refused"]["value"]
    serious = of_all >= MANY_OF_ALL or through[named[0]] >= MOST_OF_A_KIND
    text = (
        f"Of 100 pictures that are no upright chest radiographs, {round(100 * of_all)} are answered as if they were, "
        f"and the answer may be a sure one: {listed}."
    )
    return [Caution("serious" if serious else "note", "It answers for other pictures", text)]


def _capped(found: Mapping[str, Any]) -> list[Caution]:
    judges = found.get("validation") or {}
    if not judges.get("capped"):
        return []
    text = (
        f"At most {100 * found['allowed']:g}% of radiographs were to be refused. With "
        f"{plural(judges['patients'], 'patient')} in validation no less than {100 * judges['least_allowed']:.1f}% can "
        f"be promised; {judges['patients_needed']:,} would be needed."
    )
    return [Caution("note", "Too few validation patients for the share that may be refused", text)]


def _refused_films(found: Mapping[str, Any]) -> list[Caution]:
    share, allowed = found["test"]["refused"], found.get("allowed")
    if allowed is None or share["low"] is None or share["low"] <= allowed:
        return []
    text = (
        f"Of 100 test radiographs, {with_interval({name: 100 * share[name] for name in ('value', 'low', 'high')}, 0)} "
        f"are refused as unlike those of training, where about {100 * allowed:g} should be. The figures count them "
        "all the same."
    )
    return [Caution("serious" if share["value"] >= REFUSED else "note", "It refuses radiographs", text)]
