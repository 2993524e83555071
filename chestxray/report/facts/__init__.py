"""What a run knows of itself, in sentences, each with figures or names from its run.

A fact is a function of the run that returns lines, none where the run does not know. The items
of the reporting guidelines name their facts in ``reporting_items.toml``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chestxray.report.facts import data, model, results
from chestxray.runs.run_folder import Run

Fact = Callable[[Run], list[str]]

#: Every fact by its name.
FACTS: Mapping[str, Fact] = {fact.__name__: fact for fact in (*data.FACTS, *model.FACTS, *results.FACTS)}
