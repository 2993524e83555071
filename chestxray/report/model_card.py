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

from chestxray.report.facts import FACTS
from chestxray.report.facts.data import drawn, phantoms
from chestxray.report.formatting import ordered
from chestxray.report.guidelines import Checklist, Item, author_texts, checklists
from chestxray.report.limitations import cautions, summary
from chestxray.report.sections import class_counts
from chestxray.report.templating import render
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_text

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
    facts = {name: tuple(fact(run)) for name, fact in FACTS.items()}
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

    ``write(run_folder.open_complete(Path("runs/x")))`` renders the card of a finished run again.

    Raises:
        InputError: see `answered`.
        OutputError: the folder cannot be written to.
    """
    texts = {"MODEL_CARD.md": text(run), "MODEL_CARD.html": page(run)}
    for name, content in texts.items():
        write_text(run.folder / name, content)
    return run.folder / "MODEL_CARD.html"


def text(run: Run) -> str:
    """Return the card as Markdown. Raises the errors of `answered`."""
    return _filled_in("model_card.md.jinja", run)


def page(run: Run) -> str:
    """Return the card as one self-contained HTML page. Raises the errors of `answered`."""
    return _filled_in("model_card.html.jinja", run)


def _filled_in(template: str, run: Run) -> str:
    per_class = run.metrics["per_class"]
    return render(
        template,
        {"md": markdown},
        title=f"{run.recipe.model} on {run.data_name}",
        summary=summary(run),
        cautions=cautions(run),
        checklists=answered(run),
        counts=class_counts(run),
        level=run.level,
        test=ordered(run.metrics["test"]),
        per_class=per_class,
        columns=list(dict.fromkeys(name for item in per_class.values() for name in item)),
    )


def markdown(text: Any) -> str:
    r"""Escape text for Markdown and its table cells: a class may be called ``a|b``.

    >>> markdown("a|b <c>")
    'a\\|b &lt;c&gt;'
    """
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", line)
