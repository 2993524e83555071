"""Writes a comparison into its folder: tables, a forest plot and one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from chestxray._version import RESEARCH_ONLY
from chestxray.errors import OutputError
from chestxray.evaluation.figure_format import number
from chestxray.evaluation.paired.comparison_result import Comparison
from chestxray.evaluation.paired.letters import caption
from chestxray.evaluation.paired.p_value_function import ALPHA
from chestxray.evaluation.shortcuts.verdict import short
from chestxray.report import figures, formatting, map_checks_wording
from chestxray.report.embedded_images import Picture, figure
from chestxray.report.templating import render
from chestxray.storage.files import explained, replacing, write_json, write_text
from chestxray.studies import findings_verdict
from chestxray.studies.compared import Compared, FindingsCompared, repeats_text
from chestxray.studies.comparison_verdict import cautions, verdict
from chestxray.studies.maps_side_by_side import side_by_side
from chestxray.studies.study import STUDY

#: The file that identifies the folder of a comparison.
COMPARISON = "comparison.json"
PAGE = "comparison.html"


def write(compared: Compared, folder: Path) -> Path:
    """Write the comparison into `folder` and return the path of the page.

    ``comparison.csv``, ``pairs.csv``, ``comparison.json``, ``forest.png``, ``comparison.html``.

    Raises:
        OutputError: `folder` has other content, or cannot be written.
    """
    comparison, said = compared.comparison, verdict(compared)
    tables = {"comparison.csv": compared.to_frame(), "pairs.csv": comparison.pairs_to_frame()}
    content = comparison.to_json() | {"models": compared.models, "data": compared.data, "verdict": list(said)}
    content |= _maps_record(compared)
    with _written(folder, tables, content):
        forest = _forest(comparison, folder / "forest.png", formatting.title(comparison.metric))
        write_text(folder / PAGE, _page(compared, said, forest))
    return folder / PAGE


def write_findings(compared: FindingsCompared, folder: Path) -> Path:
    """Write the comparison on findings into `folder` and return the path of the page.

    ``comparison.csv`` (the means), ``findings.csv``, ``pairs.csv``, ``comparison.json``, ``forest.png``,
    ``comparison.html``.

    Raises:
        OutputError: `folder` has other content, or cannot be written.
    """
    comparison, mean = compared.comparison, compared.mean
    said = findings_verdict.verdict(compared)
    tables = {
        "comparison.csv": mean.to_frame(),
        "findings.csv": compared.findings_to_frame(),
        "pairs.csv": comparison.pairs_to_frame(),
    }
    content = comparison.to_json() | {"models": mean.models, "data": compared.data, "verdict": list(said)}
    content |= _maps_record(mean)
    with _written(folder, tables, content):
        title = f"Mean {formatting.title(comparison.metric)}"
        forest = _forest(comparison.mean, folder / "forest.png", title)
        write_text(folder / PAGE, _findings_page(compared, said, forest))
    return folder / PAGE


@contextmanager
def _written(folder: Path, tables: Mapping[str, pd.DataFrame], content: Mapping[str, Any]) -> Iterator[None]:
    """Write the tables by their names and `content` as JSON, and let the block write the page."""
    check_folder(folder)
    with explained(folder):
        for name, frame in tables.items():
            with replacing(folder / name) as temporary:
                frame.to_csv(temporary, index=False)
        write_json(folder / COMPARISON, {**content, "research_only": RESEARCH_ONLY})
        yield


def check_folder(folder: Path) -> None:
    """Raise `OutputError` where `folder` has content that is neither a comparison nor a study."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"The output {folder} is a file; it must be a folder.")
    own = any((folder / name).is_file() for name in (COMPARISON, STUDY))
    if folder.is_dir() and any(folder.iterdir()) and not own:
        raise OutputError(f"The output folder {folder} exists and is not a comparison; choose another with --output.")


def _forest(comparison: Comparison, path: Path, title: str) -> Picture:
    standings = comparison.standings
    drawn = figures.forest(
        {s.model: s.figure.to_json() for s in standings},
        f"{title} and 95% interval (no unit)",
        marks={s.model: s.letters for s in standings},
        repeats={s.model: s.repeats for s in standings},
    )
    figures.save(drawn, path)
    listed = "; ".join(f"{s.model} {number(s.figure.value)}{f' ({s.letters})' if s.letters else ''}" for s in standings)
    return figure(path, f"Forest plot of the {title}: {listed}.")


def _page(compared: Compared, said: Sequence[str], forest: Picture) -> str:
    same = side_by_side(compared.candidates)
    return render(
        "comparison.html.jinja",
        kind="comparison",
        headings={
            "models": "Models",
            "controls": "Shortcut controls",
            "pairs": "Pairs",
            **({"heatmaps": "Heat maps of the same images"} if same else {}),
            **({"agreement": "Do the heat maps agree?"} if compared.maps else {}),
            "measures": "All measures",
            "method": "Method",
        },
        verdict=said,
        positive=compared.comparison.positive,
        forest=forest,
        same_images=same,
        **_shown(compared),
    )


def _findings_page(compared: FindingsCompared, said: Sequence[str], forest: Picture) -> str:
    comparison, same = compared.comparison, side_by_side(compared.candidates)
    findings = [
        {
            "name": name,
            "rows": one.rows,
            "patients": one.patients,
            "models": {standing.model: standing for standing in one.standings},
            "controls": {model: short(compared.controls_of(name, model)) for model in compared.candidates},
            "pairs": _pairs(one),
        }
        for name, one in comparison.findings.items()
    ]
    return render(
        "findings_comparison.html.jinja",
        kind="comparison on findings",
        headings={
            "models": "Mean over findings",
            "findings": "Each finding",
            "pairs": "Pairs in each finding",
            "controls": "Shortcut controls",
            **({"heatmaps": "Heat maps of the same images"} if same else {}),
            **({"agreement": "Do the heat maps agree?"} if compared.maps else {}),
            "measures": "All measures",
            "method": "Method",
        },
        verdict=said,
        forest=forest,
        findings=findings,
        tests=comparison.tests,
        not_scored=comparison.not_scored,
        same_images=same,
        **_shown(compared.mean),
    )


def _maps_record(compared: Compared) -> dict[str, Any]:
    return {} if compared.maps is None else {"map_checks": compared.maps.to_json()}


def _pairs(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        item | {"apart": pair.apart, "p_said": formatting.p_text(pair.p), "p_holm_said": formatting.p_text(pair.p_holm)}
        for item, pair in zip(comparison.to_json()["pairs"], comparison.pairs, strict=True)
    ]


def _shown(compared: Compared) -> dict[str, Any]:
    """Return what the pages of both tasks show of a comparison."""
    comparison, candidates = compared.comparison, compared.candidates
    content = comparison.to_json()
    names = [standing.model for standing in comparison.standings]
    title = f"{' and '.join(names)} compared" if len(names) == 2 else f"{len(names)} models compared"
    models = [
        item | {"single": repeats_text(item["repeats"]), "controls_said": short(candidates[item["model"]].controls)}
        for item in compared.models
    ]
    return {
        "title": f"{title} on {compared.data}",
        "cautions": cautions(candidates),
        "models": models,
        "letters_said": caption(standing.letters for standing in comparison.standings),
        "pairs": _pairs(comparison),
        "measures": formatting.ordered(content["models"][0]["test"]),
        "measure": formatting.title(comparison.metric),
        "repeated": any(len(standing.repeats) > 1 for standing in comparison.standings),
        "level": "95%",
        "alpha": ALPHA,
        "scope": comparison.scope[0].upper() + comparison.scope[1:],
        "design": comparison.design,
        "margin": comparison.margin,
        "agreement": None if compared.maps is None else map_checks_wording.agreement(compared.maps.to_json()),
        "interval": content["interval"],
    }
