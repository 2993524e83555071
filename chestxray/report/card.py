"""MODEL_CARD.md: what CLAIM 2024 and TRIPOD+AI ask of a model, as far as a run knows it.

What it cannot know (intended use, ethics, how the reference standard was made) stands there as a
blank for the author, since an empty field is honest and a missing one is not noticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jinja2

from chestxray.report import wording
from chestxray.report.cautions import cautions, summary
from chestxray.report.record import Record
from chestxray.report.sections import class_counts, data_facts, environment_facts
from chestxray.report.wording import ordered, plural

BLANK = "_to be filled in by the author_"


@dataclass(frozen=True)
class Part:
    """A heading and its fields; an empty text is a blank."""

    title: str
    fields: dict[str, str]


def render(record: Record) -> str:
    """The card as Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("chestxray"),
        autoescape=jinja2.select_autoescape(("html.jinja",)),  # Markdown is escaped by `markdown`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "md": markdown,
        "number": wording.number,
        "span": wording.span,
        "whole": wording.whole,
        "plural": wording.plural,
        "figure_title": wording.title,
    }
    per_class = record.metrics["per_class"]
    return environment.get_template("model_card.md.jinja").render(
        title=f"{record.recipe.model} on {record.data_name}",
        research_only=wording.RESEARCH_ONLY,
        summary=summary(record),
        cautions=cautions(record),
        parts=_parts(record),
        blank=BLANK,
        counts=class_counts(record),
        level=record.level,
        test=ordered(record.metrics["test"]),
        per_class=per_class,
        columns=list(dict.fromkeys(name for item in per_class.values() for name in item)),
    )


def markdown(text: Any) -> str:
    r"""Text that means itself in Markdown and in a cell of a table: a class may be called ``a|b``.

    >>> markdown("a|b <c>")
    'a\\|b &lt;c&gt;'
    """
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", line)


def _parts(record: Record) -> list[Part]:
    facts, made = data_facts(record), environment_facts(record)
    return [
        Part("Model", _model(record, facts, made)),
        Part("Intended use", _intended_use(record)),
        Part("Data", _data(record, facts)),
        Part("Training", _training(record)),
        Part("Evaluation", _evaluation(record)),
        Part("Explanation", _explanation(record)),
        Part("Limitations", dict.fromkeys(("Known biases and failures", "Populations not covered"), "")),
        Part("Environment", {name: text for name, text in made.items() if name not in _OF_THE_MODEL}),
        Part("Authorship", dict.fromkeys(_AUTHORSHIP, "")),
    ]


_OF_THE_MODEL = ("Reference", "Licence of the architecture", "Licence of the weights")
_AUTHORSHIP = (
    "Authors and contact",
    "Licence of the trained model",
    "Citation",
    "Funding and conflicts of interest",
    "Ethics approval and consent",
    "Registration and protocol",
    "Where code, model and data can be had",
    "Involvement of patients and the public",
)


def _model(record: Record, facts: dict[str, str], made: dict[str, str]) -> dict[str, str]:
    names = ("Architecture", "Initial weights", "Input", "Classes", "Positive class")
    known = {name: facts[name] for name in names if name in facts}
    output = "A probability for each class, adding up to 1; the most probable class is the answer"
    return known | {"Output": output} | {name: made.get(name, "") for name in _OF_THE_MODEL}


def _intended_use(record: Record) -> dict[str, str]:
    return {
        "Purpose": "Research on the classification of chest radiographs",
        "Not for": "Diagnosis, triage or any other clinical use",
        "Intended users and setting": "",
        "Place in the clinical pathway": "",
    }


def _data(record: Record, facts: dict[str, str]) -> dict[str, str]:
    audit = record.audit
    excluded = {
        "unreadable": len(audit.get("unreadable", [])),
        "left out because of leaks": len(audit.get("dropped", [])),
    }
    told = ", ".join(f"{plural(count, 'image')} {why}" for why, count in excluded.items() if count)
    names = ("Data", "Licence of the data", "Citation")
    return {name: facts.get(name, "") for name in names} | {
        "Where, when and how the images were acquired": "Drawn by a program" if record.phantom else "",
        "Eligibility of patients": "",
        "Reference standard (who labelled, how, how well they agreed)": "By construction" if record.phantom else "",
        "Demographics (age, sex, ethnicity)": "",
        "Excluded by the run": told or ("none" if audit else ""),
        "Missing data": "",
        "Split": facts["Split"],
        "Preparation": facts.get("Input", ""),
        "Sample size, how it was arrived at": "",
    }


def _training(record: Record) -> dict[str, str]:
    recipe = record.recipe
    epochs = "" if record.history.empty else plural(len(record.history), "epoch")
    return {
        "Loss": recipe.loss + (", classes weighted by inverse frequency" if recipe.class_weights else ""),
        "Optimiser": f"{recipe.optimizer}, {recipe.schedule} schedule",
        "Epochs run": epochs,
        "Highest learning rate": _rates(record),
        "Batch size": str(recipe.batch_size),
        "Augmentation": recipe.augment + (f", {recipe.mix}" if recipe.mix != "none" else ""),
        "Normalisation": recipe.normalisation,
        "Choice of the final model": "Lowest validation loss of the last phase",
        "Seed": str(recipe.seed),
    }


def _rates(record: Record) -> str:
    history = record.history
    if "learning_rate" not in history or history.empty:
        return ""
    highest = history.groupby("phase", sort=False)["learning_rate"].max()
    return ", ".join(f"{rate:.2g} ({phase})" for phase, rate in highest.items())


def _evaluation(record: Record) -> dict[str, str]:
    interval = record.metrics.get("interval", {})
    patients = record.patients(split="test")
    people = f" of {plural(patients, 'patient')}" if patients else ", patients not known"
    method = interval.get("method", "")
    replicates = f", {interval['replicates']:,} replicates" if interval.get("replicates") else ""
    return {
        "Test set": plural(record.metrics["rows"], "image") + people,
        "Test on data of another origin": "",
        "Intervals": f"{record.level}, {method}{replicates}" if method else "",
        "Threshold": "None tuned: the most probable class is the answer",
        "Fairness: results by group of patients": "",
    }


def _explanation(record: Record) -> dict[str, str]:
    index = record.heatmaps
    layer = f"Grad-CAM at layer {index['layer']}" if index.get("layer") and index.get("images") else ""
    return {"Heat maps": layer or (f"none: {index['reason']}" if index.get("reason") else "none")}
