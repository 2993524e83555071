"""Runs as HTML for notebooks. All text is escaped: names of classes and files may hold anything."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from chestxray._version import RESEARCH_ONLY
from chestxray.evaluation.intervals import Figure
from chestxray.report import finding_sentences, published_model
from chestxray.report.caution import Caution
from chestxray.report.formatting import ordered, title
from chestxray.report.limitations import summary
from chestxray.runs.run_folder import Run

#: Maximum number of cautions that are shown; the report has all.
MOST = 6


def of_run(run: Run, limitations: tuple[Caution, ...], report: Path) -> str:
    """Return HTML with the figures and their intervals, the data, the limitations, and a link to the report."""
    rows = [
        (title(name), *map(_number, (figure.value, figure.low, figure.high)))
        for name, item in ordered(run.metrics["test"]).items()
        if (figure := Figure.from_json(item)).value is not None
    ]
    parts = [
        f"<h4>{html.escape(run.recipe.model)} on {html.escape(run.data_name)}</h4>",
        f"<p>{html.escape(summary(run))}</p>",
        pd.DataFrame(rows, columns=["figure of the test", "value", "low", "high"]).to_html(index=False),
        f"<p>Data: {html.escape(_counted(run))}. Intervals are of {html.escape(run.level)}.</p>",
    ]
    if limitations:
        parts.append(f"<p>What weakens this result:</p>{_listed(_words(run, item) for item in limitations[:MOST])}")
    if len(limitations) > MOST:
        parts.append(f"<p>And {len(limitations) - MOST} more, in the report.</p>")
    if report.is_file():
        parts.append(f'<p><a href="{html.escape(_link(report))}" target="_blank">Report</a></p>')
    return "".join([*parts, f"<p><em>{html.escape(RESEARCH_ONLY)}</em></p>"])


def of_findings(run: Run, report: Path) -> str:
    """Return HTML with the figures of each finding and their means, what they mean, and a link to the report."""
    parts = [f"<h4>{html.escape(run.recipe.model)} on {html.escape(run.data_name)}</h4>"]
    parts += [f"<p>{html.escape(sentence)}</p>" for sentence in finding_sentences.summary(run)]
    parts.append(run.findings_evaluation._repr_html_())
    if report.is_file():
        parts.append(f'<p><a href="{html.escape(_link(report))}" target="_blank">Report</a></p>')
    return "".join([*parts, f"<p><em>{html.escape(RESEARCH_ONLY)}</em></p>"])


def of_published(run: Run) -> str:
    """Return HTML with the name of a ready model, what is to be known of its answers, and its findings."""
    parts = [
        f"<h4>{html.escape(run.published)}</h4>",
        f"<p>&#9888; {html.escape(published_model.caution(run).text)}</p>",
        f"<p>Findings: {html.escape(', '.join(run.finding_decision.classes))}.</p>",
        f"<p><em>{html.escape(RESEARCH_ONLY)}</em></p>",
    ]
    return "".join(parts)


def _counted(run: Run) -> str:
    totals = run.counts.sum()
    splits = ", ".join(f"{int(totals[name]):,} {name}" for name in totals.index)
    return f"{len(run.used):,} images of {run.patients()} ({splits})"


def _words(run: Run, item: Caution) -> str:
    sentence = f"<b>{html.escape(item.title)}.</b> {html.escape(run.shorten_in(item.text))}"
    return f"&#9888; {sentence}" if item.weight == "serious" else sentence


def _listed(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _link(path: Path) -> str:
    """Return a link to `path`, relative if it is below the working directory, which a notebook's server serves."""
    whole = path.absolute()
    return quote(whole.relative_to(Path.cwd()).as_posix()) if whole.is_relative_to(Path.cwd()) else whole.as_uri()
