"""Facts about a run for its model card: sentences with figures and names from the run's files.

A fact is a function that takes the run and returns a list of sentences, empty if the run lacks the
information. The items of the reporting guidelines name their facts in ``reporting_items.toml``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chestxray.report.facts import data, findings, model, results
from chestxray.runs.run_folder import Run

Fact = Callable[[Run], list[str]]

#: Every fact by its name.
FACTS: Mapping[str, Fact] = {fact.__name__: fact for fact in (*data.FACTS, *model.FACTS, *results.FACTS)}
#: The same of a run of findings.
OF_FINDINGS: Mapping[str, Fact] = {**FACTS, **{fact.__name__: fact for fact in findings.FACTS}}


def facts_of(run: Run) -> Mapping[str, tuple[str, ...]]:
    """Return the sentences of every fact about `run`, by its name."""
    facts = OF_FINDINGS if run.task == "findings" else FACTS
    return {name: tuple(fact(run)) for name, fact in facts.items()}
