"""Writes the figures, the self-contained HTML report and the model card of a run::

write(Path("runs/x"))  # PosixPath('runs/x/report.html')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from chestxray.report import embedded_images, figures, model_card, run_figures
from chestxray.report.limitations import cautions, summary
from chestxray.report.sections import SECTIONS, Material, Section
from chestxray.report.templating import render
from chestxray.runs import run_folder
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_text

__all__ = ["SECTIONS", "Material", "Run", "Section", "page", "write"]


def write(folder: Path, samples: Mapping[str, np.ndarray] | None = None) -> Path:
    """Write ``figures/``, the model card and, last, ``report.html``; return the path of ``report.html``.

    All numbers are read from `folder`; none is recomputed. `samples` maps image paths to pixels, uint8
    (height, width), for any subset of the images; a few are picked for the grids of training and test
    images. Without `samples` the page has no such grids.

    Raises:
        InputError: `folder` lacks a file that every evaluated run has, or its ``card.toml`` is invalid.
        DataError: a file in the folder is damaged.
        OutputError: the folder cannot be written to.
    """
    run = run_folder.open_complete(folder)
    drawn = _write_figures(run, samples or {})
    material = Material(
        run=run,
        figures=drawn,
        samples=tuple(embedded_images.training_tiles(run, samples or {})),
        tests=tuple(embedded_images.test_tiles(run, samples or {})),
        heatmaps=tuple(embedded_images.heatmap_tiles(run)),
    )
    model_card.write(run)
    report = folder / "report.html"
    write_text(report, page(material))
    return report


def _write_figures(run: Run, samples: Mapping[str, np.ndarray]) -> dict[str, embedded_images.Picture]:
    """Write ``figures/`` and return, by name, the figures that the page embeds unchanged."""
    alternatives = run_figures.alternatives(run)
    drawn: dict[str, embedded_images.Picture] = {}
    stale = {run.folder / "figures" / f"{name}.png" for name in run_figures.NAMES}
    for name, figure in run_figures.draw(run, samples):
        path = run.folder / "figures" / f"{name}.png"
        figures.save(figure, path)
        stale.discard(path)
        if name in alternatives:  # the page shows the grids of radiographs image by image
            drawn[name] = embedded_images.figure(path, alternatives[name])
    # Figures that an earlier report drew from other predictions must not remain.
    for path in stale:
        path.unlink(missing_ok=True)
    return drawn


def page(material: Material, sections: Sequence[Section] = SECTIONS) -> str:
    """Return the page as HTML: the `sections` that have content, in order."""
    built = [(section, section.build(material)) for section in sections]
    return render(
        "report.html.jinja",
        material=material,
        run=material.run,
        sections=[(section, context) for section, context in built if context is not None],
        cautions=cautions(material.run),
        summary=summary(material.run),
    )
