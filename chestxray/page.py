"""Pages beside the report of a run: one file each, in the same look."""

from __future__ import annotations

from typing import Any

import jinja2

from chestxray import __version__
from chestxray.report import wording


def render(template: str, **context: Any) -> str:
    """The template of that name below ``templates/``, with the words and numbers of `report.wording`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("chestxray"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": wording.number,
        "span": wording.span,
        "whole": wording.whole,
        "plural": wording.plural,
        "duration": wording.duration,
        "figure_title": wording.title,
    }
    return environment.get_template(template).render(
        research_only=wording.RESEARCH_ONLY, version=__version__, **context
    )
