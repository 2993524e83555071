"""The limitations of a result, which a reader must know before the first number.

Only this module decides what counts as a limitation: the summary of the report, the model card, the
terminal output of a command and the page of a comparison all take theirs from `cautions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from chestxray.data import lung_boxes
from chestxray.evaluation.figure_format import in_sentence, span, with_interval
from chestxray.evaluation.paired.p_value_function import ALPHA
from chestxray.report import answer_cautions, interval_coverage
from chestxray.report.caution import Caution
from chestxray.report.formatting import in_hundred, plural, title, value_of
from chestxray.runs.run_folder import Run

#: Below this many test images of a class, each image changes its sensitivity by more than 3 percentage points.
FEW_OF_A_CLASS = 30
FEW_PATIENTS = 50
#: An AUROC interval wider than this hardly distinguishes a fair model from a good one.
WIDE = 0.1
#: Maximum number of sentences of one kind that are listed individually.
MOST_SAID = 3
#: Title of a note that is not a limitation in itself.
NOTED = "Note on the data"
#: Name under which an external evaluation stores the cautions of its training run.
TRAINING_RUN = "training_run"


def cautions(run: Run) -> list[Caution]:
    """Return all cautions that apply to the run: serious ones first, and within each weight the gravest first."""
    found = [
        *_drawn(run),
        *_leaks(run),
        *_one_answer(run),
        *_chance(run),
        *_controls(run),
        *_confounds(run),
        *_whole(run),
        *_generalisation_gap(run),
        *answer_cautions.refusal(run),
        *answer_cautions.validation(run),
        *_groups(run),
        *answer_cautions.sensitivity(run),
        *answer_cautions.probabilities(run),
        *answer_cautions.abstention(run),
        *_guess(run),
        *_test_set(run),
        *interval_coverage.caution(run),
        *_patients(run),
        *_conflicting(run),
        *_left_out(run),
        *_inherited(run),
        *(Caution("note", NOTED, note) for note in run.notes if note != run.split_note),
    ]
    return _sorted(found)


def of_training(run: Run) -> list[Caution]:
    """Return the cautions that apply wherever the model is used: how, and on which data, it was trained."""
    return _sorted(caution for find in _OF_TRAINING for caution in find(run))


def of_data(run: Run) -> list[Caution]:
    """Return the cautions that apply to whatever is learnt from these data, such as every finding of a run."""
    return _sorted(caution for find in (_drawn, _leaks, _confounds, _whole) for caution in find(run))


def of_model(run: Run) -> list[Caution]:
    """Return the cautions about one model of a comparison, which reports controls and patients separately."""
    return _sorted(
        caution
        for find in (_leaks, _confounds, answer_cautions.refusal, answer_cautions.validation)
        for caution in find(run)
    )


def _sorted(found: Iterable[Caution]) -> list[Caution]:
    return sorted(found, key=lambda caution: caution.weight != "serious")


def _drawn(run: Run) -> list[Caution]:
    if not run.drawn:
        return []
    every = run.drawn == len(run.index.rows)
    text = (
        "The images are drawn by a program; no person was X-rayed. The results show that the "
        "software works. They say nothing about patients."
        if every
        else f"{run.drawn:,} of {len(run.index.rows):,} images are drawn by a program; no person was "
        "X-rayed for them. What they add to the results says nothing about patients."
    )
    return [Caution("serious", "Drawn data, not radiographs", text)]


def _leaks(run: Run) -> list[Caution]:
    copies = len(run.audit.get("exact_duplicates", {}).get("across_splits", []))
    near = len(run.audit.get("near_duplicates", {}).get("across_splits", []))
    patients = len(run.audit.get("patients", {}).get("across_splits", []))
    if not copies + near + patients:
        return []
    edited = f", {plural(near, 'group')} of edited copies" if near else ""
    what = f"{plural(copies, 'group')} of identical images{edited} and {plural(patients, 'patient')}"
    if "generalisation_gap" in run.extras:
        where = "had been seen by the run in training or validation"
        if run.audit.get("on_leak") == "ignore":
            text = f"{what} {where}, and were kept in this test. The results are likely too good."
            return [Caution("serious", "Images that the model has seen were kept in the test", text)]
        text = f"{what} {where}; {plural(len(run.audit.get('dropped', [])), 'image')} were left out of this test."
        return [Caution("note", "Images that the model has seen were left out", text)]
    if run.audit.get("on_leak") == "ignore":
        text = f"{what} stand on both sides of a split, and were kept there. The results are likely too good."
        return [Caution("serious", "Leaks between the splits were ignored", text)]
    dropped = plural(len(run.audit.get("dropped", [])), "image")
    text = f"{what} stood on both sides of a split; {dropped} were left out of training or validation for it."
    return [Caution("note", "Leaks between the splits were removed", text)]


def _one_answer(run: Run) -> list[Caution]:
    test = run.predictions.of("test").rows
    if test.empty or test["predicted"].nunique() > 1 or test["label"].nunique() < 2:
        return []
    answer = test["predicted"].iloc[0]
    text = f"Every test image was called {answer}. The model does not tell the classes apart."
    return [Caution("serious", "The model always gives the same answer", text)]


def _chance(run: Run) -> list[Caution]:
    auroc = run.metrics.get("test", {}).get("auroc") or {}
    low, high = auroc.get("low"), auroc.get("high")
    if low is None or high is None:
        return []
    if low <= 0.5:
        text = f"The interval of the AUROC, {span(auroc, 2)}, reaches down to 0.5, which is a coin toss."
        return [Caution("serious", "Not shown to be better than chance", text)]
    if high - low > WIDE:
        text = f"The AUROC may lie anywhere from {span(auroc, 2)}. More test patients would narrow that."
        return [Caution("note", "Wide interval", text)]
    return []


def _controls(run: Run) -> list[Caution]:
    found = run.extras.get("controls") or {}
    if not found:
        # An external evaluation inherits the controls of its training run, see `_inherited`.
        text = "Whether a model that sees no lungs does as well is not known: no controls were run."
        return [] if "generalisation_gap" in run.extras else [Caution("note", "No controls", text)]
    fired = [item for item in found.get("controls", []) if item["fires"]]
    if not fired:
        open_ = [item for item in found.get("controls", []) if item.get("state") == "undecided"]
        return [Caution("note", "Shortcuts are not ruled out", found["verdict"])] if open_ else []
    serious = any(item["kind"] == "leak" for item in fired)
    title = "Shortcuts tell the classes apart" if serious else "A blurred or blanked image does nearly as well"
    return [Caution("serious" if serious else "note", title, found["verdict"])]


def _test_set(run: Run) -> list[Caution]:
    test = run.predictions.of("test").rows
    each = test["label"].value_counts().reindex(list(run.classes), fill_value=0)
    few = each[each < FEW_OF_A_CLASS]
    people = run.patients(split="test")
    parts = []
    if len(few):
        listed = ", ".join(f"{name} ({count})" for name, count in few.head(8).items())
        more = f" and {len(few) - 8} more" if len(few) > 8 else ""
        parts.append(f"Classes with fewer than {FEW_OF_A_CLASS} test images: {listed}{more}.")
    if people.known is not None and not people.unknown and people.known < FEW_PATIENTS:
        parts.append(f"The test images come from {people} only.")
    return [Caution("note", "Small test set", " ".join(parts))] if parts else []


def _patients(run: Run) -> list[Caution]:
    unknown = run.patients().unknown
    if not unknown:
        return []
    share = "the" if unknown == len(run.used) else f"{unknown:,} of {len(run.used):,}"
    text = (
        f"It is not known which patients {share} images come from. One person may stand in training and in "
        "test, which makes the results too optimistic, and the intervals take each such image as independent, which "
        "narrows them."
    )
    return [Caution("note", "Patients not known", text)]


def _left_out(run: Run) -> list[Caution]:
    unreadable = run.audit.get("unreadable", [])
    if not unreadable:
        return []
    text = f"{plural(len(unreadable), 'file')} could not be read and had no part in the run; see the data audit."
    return [Caution("note", "Unreadable files", text)]


def _confounds(run: Run) -> list[Caution]:
    flagged = [item for item in run.audit.get("confounds", []) if item["flagged"]]
    if not flagged:
        return []
    said = [item["sentence"] for item in flagged[:MOST_SAID]]
    if len(flagged) > MOST_SAID:
        said.append(f"{plural(len(flagged) - MOST_SAID, 'more property', 'more properties')} in the data audit.")
    serious = any(item["severity"] == "critical" for item in flagged)
    text = f"{' '.join(said)} A model can learn that in place of the disease."
    return [Caution("serious" if serious else "note", "Image properties predict the class", text)]


def _whole(run: Run) -> list[Caution]:
    """Return a caution about images that are not cut to their lungs, since these were not found."""
    index = run.index.replace(run.used)
    if lung_boxes.COLUMN not in index.rows or not (whole := index.rows[lung_boxes.COLUMN] == "").any():
        return []
    members = {name: index.members(name) for name in index.classes}
    listed = "; ".join(f"{name} {(whole & of).sum():,} of {of.sum():,}" for name, of in members.items())
    text = (
        f"In {whole.sum():,} of {len(index):,} images no plausible lungs were found, and they were used whole: "
        f"{listed}. They look unlike images that are cut to their lungs: where their share differs between classes, a "
        "model can learn that in place of the disease."
    )
    return [Caution("note", "Images that were not cut to their lungs", text)]


def _generalisation_gap(run: Run) -> list[Caution]:
    lost = (run.extras.get("generalisation_gap") or {}).get("figures", {}).get("auroc") or {}
    if not lost or lost["gap"]["low"] is None or lost["gap"]["low"] <= 0:
        return []
    # Of a finding, the test is one of several.
    if ((run.extras["generalisation_gap"].get("corrected") or {}).get("p_holm") or 0) >= ALPHA:
        return []
    inside, here = (f"{lost[name]['value']:.2f}" for name in ("internal", "external"))
    text = f"The AUROC is {here} here and was {inside} on the run's own test: less by {in_sentence(lost['gap'])}."
    return [Caution("serious", "Worse here than where it was trained", text)]


def _groups(run: Run) -> list[Caution]:
    if (gaps := run.extras.get("gaps")) is not None:
        return _gaps(gaps)
    whole = run.metrics["test"].get("auroc") or {}
    if whole.get("low") is None:
        return []
    columns = {"source": run.extras.get("by_source") or {}, **(run.extras.get("by_group") or {})}
    worse = [
        (auroc["value"], f"{column} {name} {in_sentence(auroc)}")
        for column, parts in columns.items()
        for name, part in parts.items()
        if (auroc := part["test"].get("auroc") or {}).get("high") is not None and auroc["high"] < whole["low"]
    ]
    if not worse:
        return []
    listed = "; ".join(text for _, text in sorted(worse)[:MOST_SAID])
    text = f"The AUROC is lower than the {whole['value']:.2f} of all test images for {listed}."
    return [Caution("note", "Worse for some than for others", text)]


def _gaps(gaps: Mapping[str, Any]) -> list[Caution]:
    """Return a caution about the gaps between groups that remain significant after Holm's correction."""
    significant = []
    for column, figures in gaps["columns"].items():
        for name, item in figures.items():
            for group, gap in item["groups"].items():
                if gap["p_holm"] is None or gap["p_holm"] >= ALPHA:
                    continue
                pair = (group, item["against"]) if gap["value"] < 0 else (item["against"], group)
                size = in_sentence(gap if gap["value"] >= 0 else turned(gap))
                significant.append(
                    (gap["p_holm"], f"{title(name)} by {column}, {pair[0]} less than {pair[1]} by {size}")
                )
    if not significant:
        return []
    text = "; ".join(text for _, text in sorted(significant)[:MOST_SAID])
    return [Caution("note", "Worse for some than for others", f"{text}: more than luck, of all groups compared.")]


def turned(gap: Mapping[str, Any]) -> dict[str, float | None]:
    """Return a gap and its interval with the sign changed."""
    ends = {"low": gap.get("high"), "high": gap.get("low")}
    return {"value": -gap["value"], **{name: None if end is None else -end for name, end in ends.items()}}


def _guess(run: Run) -> list[Caution]:
    accuracy = run.metrics["test"].get("accuracy") or {}
    counts = [sum(row) for row in run.metrics["confusion"]["counts"]]
    if accuracy.get("low") is None or not sum(counts) or any(found.weight == "serious" for found in _chance(run)):
        return []
    most = max(counts) / sum(counts)
    if accuracy["low"] > most:
        return []
    label = run.metrics["confusion"]["classes"][counts.index(max(counts))]
    model = in_hundred(accuracy["value"])
    text = f"Always naming {label} is right for {in_hundred(most)} test images, the model for {model}."
    return [Caution("note", "Accuracy not shown to be better than a guess", text)]


def _conflicting(run: Run) -> list[Caution]:
    count = len(run.audit.get("conflicting_labels", []))
    if not count:
        return []
    text = f"{plural(count, 'group')} of copies of one radiograph carry different classes: some labels are wrong."
    return [Caution("note", "Contradicting labels", text)]


def _inherited(run: Run) -> list[Caution]:
    found = (run.extras.get(TRAINING_RUN) or {}).get("cautions", [])
    return [Caution(item["weight"], f"In its training: {item['title']}", item["text"]) for item in found]


_OF_TRAINING: tuple[Callable[[Run], list[Caution]], ...] = (
    _drawn,
    _leaks,
    _controls,
    _confounds,
    _whole,
    answer_cautions.validation,
)


def summary(run: Run) -> str:
    """Return a summary of the run in two plain sentences."""
    metrics = run.metrics
    rows, people = metrics.get("rows", 0), run.patients(split="test")
    tested = f"On {plural(rows, 'test image')} of {people}, {run.recipe.model}"
    auroc, accuracy = metrics["test"].get("auroc"), metrics["test"].get("accuracy")
    others = [name for name in run.classes if name != run.positive]
    if run.positive:
        kind, apart = "an", f"{run.positive} from {others[0] if len(others) == 1 else 'the rest'}"
    else:
        kind, apart = "a macro", f"{len(run.classes)} classes apart"
    first = (
        f"{tested} tells {apart} with {kind} AUROC of {in_sentence(auroc, run.level)}."
        if value_of(auroc) is not None
        else f"{tested} was asked to tell {apart}; the AUROC is not available."
    )
    if value_of(accuracy) is None:
        return first
    return f"{first} Its accuracy is {with_interval(accuracy, 2)}."
