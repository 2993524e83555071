"""Writes the result of a leakage study: ``leakage.json``, ``leakage.csv``, a forest plot and a page."""

from __future__ import annotations

from pathlib import Path

from chestxray.evaluation.figure_format import number
from chestxray.report import figures, formatting
from chestxray.report.embedded_images import figure
from chestxray.report.templating import render
from chestxray.storage.files import explained, replacing, write_json, write_text
from chestxray.studies.leakage_result import SPLITS, Leakage

LEAKAGE = "leakage.json"
PAGE = "leakage.html"


def write(found: Leakage, folder: Path) -> Path:
    """Write the files of the result into `folder` and return the path of the page.

    Raises:
        OutputError: the folder cannot be written to.
    """
    title = found.title[0].upper() + found.title[1:]
    with explained(folder):
        with replacing(folder / "leakage.csv") as temporary:
            found.to_frame().to_csv(temporary, index=False)
        write_json(folder / LEAKAGE, found.to_json())
        items = {split.name: split.figures[found.metric].to_json() for split in found.splits}
        figures.save(figures.forest(items, f"{title} and 95% interval (no unit)"), folder / "forest.png")
        listed = "; ".join(f"{name} {number(item['value'])}" for name, item in items.items())
        page = render(
            "leakage.html.jinja",
            kind="leakage",
            title=f"Gain from a leaky split: {found.model} on {found.data}",
            headings={
                "splits": "Splits",
                **({"findings": "Each finding"} if found.findings else {}),
                "method": "Method",
            },
            each=formatting.title(found.metric),
            verdict=found.verdict,
            cautions=[],
            found=found,
            how=SPLITS,
            measure=title,
            level="95%",
            forest=figure(folder / "forest.png", f"Forest plot of the {title}: {listed}."),
        )
        write_text(folder / PAGE, page)
    return folder / PAGE
