"""Writes MODEL_CARD.md and MODEL_CARD.html: the items of CLAIM 2024 and TRIPOD+AI, answered from a run's files.

Items that the files cannot answer (intended use, ethics, how the reference standard was made) are left as
blanks for the author: an empty field is honest, and a missing one is not noticed. The author's answers are
kept in ``card.toml`` in the run's folder, so that rendering the card again does not lose them.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chestxray.data.findings import WORDS
from chestxray.report import finding_sentences
from chestxray.report.facts import facts_of, findings
from chestxray.report.facts.data import drawn, phantoms
from chestxray.report.formatting import ordered
from chestxray.report.guidelines import Checklist, Item, author_texts, checklists
from chestxray.report.limitations import cautions, summary
from chestxray.report.sections import class_counts
from chestxray.report.templating import render
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_text

#: The name of the page in a run's folder.
HTML = "MODEL_CARD.html"
#: The figures in the table of findings.
OF_FINDINGS = ("auroc", "auprc", "sensitivity", "specificity")
#: The first words of every blank.
BLANK = "To be filled in by the author"


@dataclass(frozen=True)
class AnsweredItem:
    """An item with the facts from the run, the author's text, and the remaining blank (``""``: none).

    ``void``: the item does not apply, since all images are phantoms.
    """

    item: Item
    known: tuple[str, ...]
    written: str
    blank: str
    void: bool = False

    @property
    def state(self) -> Literal["filled", "void", "part", "blank"]:
        """How much of the item is answered."""
        if not self.blank:
            return "void" if self.void else "filled"
        return "part" if self.known else "blank"


@dataclass(frozen=True)
class AnsweredChecklist:
    """A checklist with its answers, in order."""

    checklist: Checklist
    answers: tuple[AnsweredItem, ...]

    @property
    def sections(self) -> list[tuple[str, list[AnsweredItem]]]:
        """The answers by section of the guideline."""
        grouped = itertools.groupby(self.answers, key=lambda answer: answer.item.section)
        return [(section, list(answers)) for section, answers in grouped]

    @property
    def tally(self) -> str:
        """The number of answered items, as ``27 of 44 items filled, 11 in part, 6 blank``."""
        counts = Counter(answer.state for answer in self.answers)
        void = f"{counts['void']} do not apply, " if counts["void"] else ""
        return (
            f"{counts['filled']} of {len(self.answers)} items filled, {void}{counts['part']} in part, "
            f"{counts['blank']} blank"
        )


def answered(run: Run) -> tuple[AnsweredChecklist, ...]:
    """Return every checklist, answered from the run and from ``card.toml``.

    Raises:
        InputError: ``card.toml`` names an unknown item or is not TOML.
    """
    texts = author_texts(run.folder)
    facts = facts_of(run)
    return tuple(
        AnsweredChecklist(
            checklist, tuple(_answer(run, facts, texts, checklist.name, item) for item in checklist.items)
        )
        for checklist in checklists()
    )


def _answer(
    run: Run,
    facts: Mapping[str, tuple[str, ...]],
    texts: Mapping[tuple[str, str], str],
    checklist: str,
    item: Item,
) -> AnsweredItem:
    written = texts.get((checklist, item.number), texts.get(("claim", item.claim), ""))
    known = tuple(line for name in item.facts for line in facts[name])
    if item.drawn and drawn(run):
        return AnsweredItem(item, (*known, phantoms(run)), written, "", void=not (known or written))
    unknown = not all(facts[name] for name in item.facts)
    if written or not (item.author or unknown):
        return AnsweredItem(item, known, written, "")
    asked = item.author or item.lacking
    return AnsweredItem(item, known, written, f"{BLANK}: {asked}" if asked else BLANK)


def write(run: Run) -> Path:
    """Write MODEL_CARD.md and MODEL_CARD.html into the run's folder; return the path of the latter.

    ``write(run_folder.open_complete(Path("runs/x")))`` renders the card of a finished run again, of a run of findings
    ``write(run_folder.open_findings(Path("runs/x")))``.

    Raises:
        InputError: see `answered`.
        OutputError: the folder cannot be written to.
    """
    texts = {"MODEL_CARD.md": text(run), HTML: page(run)}
    for name, content in texts.items():
        write_text(run.folder / name, content)
    return run.folder / HTML


def text(run: Run) -> str:
    """Return the card as Markdown. Raises the errors of `answered`."""
    return _filled_in("model_card.md.jinja", run)


def page(run: Run) -> str:
    """Return the card as one self-contained HTML page. Raises the errors of `answered`."""
    return _filled_in("model_card.html.jinja", run)


def _filled_in(template: str, run: Run) -> str:
    return render(
        template,
        {"md": markdown},
        title=f"{run.recipe.model} on {run.data_name}",
        checklists=answered(run),
        level=run.level,
        test=ordered(run.metrics["test"]),
        **(_of_findings(run) if run.task == "findings" else _of_classes(run)),
    )


def _of_classes(run: Run) -> dict[str, Any]:
    per_class = run.metrics["per_class"]
    return {
        "summary": summary(run),
        "cautions": [(item.weight, item.title, item.text) for item in cautions(run)],
        "counts": class_counts(run),
        "per_class": per_class,
        "columns": list(dict.fromkeys(name for item in per_class.values() for name in item)),
    }


def _of_findings(run: Run) -> dict[str, Any]:
    found = run.findings_evaluation
    decision = run.finding_decision.findings if "decision" in run.extras else {}
    cards = {name: (one.folder / HTML).relative_to(run.folder).as_posix() for name, one in run.findings.items()}
    return {
        "summary": " ".join(finding_sentences.summary(run)),
        "cautions": [(item.weight, item.title, item.text) for item in finding_sentences.of_whole(run)],
        "counts": findings.counts(run),
        "splits": findings.used_splits(run),
        "states": list(WORDS.values()),
        "scored": len(found.scored),
        "rows": [
            {
                "name": name,
                "card": cards.get(name),
                "known": one.known,
                "not_scored": one.not_scored,
                "figures": {figure: one.test[figure].to_json() for figure in OF_FINDINGS if figure in one.test},
                "threshold": decision[name].threshold if name in decision else None,
                "unchosen": name in decision and not decision[name].chosen,
            }
            for name, one in found.findings.items()
        ],
        "columns": OF_FINDINGS,
    }


def markdown(text: Any) -> str:
    r"""Escape text for Markdown and its table cells: a class may be called ``a|b``.

    >>> markdown("a|b <c>")
    'a\\|b &lt;c&gt;'
    """
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", line)
