"""Renders the templates of reports and model cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2

from chestxray._version import RESEARCH_ONLY, VERSION
from chestxray.evaluation import figure_format
from chestxray.report import formatting


def render(template: str, filters: dict[str, Callable[..., str]] | None = None, **context: Any) -> str:
    """Return the rendered template of that name below ``templates/``; the functions of `formatting` are filters in it.

    Values are escaped in HTML templates; Markdown templates escape them with a filter of their own.
    """
    page = template.endswith(".html.jinja")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("chestxray.report"),
        autoescape=page,  # noqa: S701 - Markdown needs another escaping
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=page,
        keep_trailing_newline=not page,
    )
    environment.filters |= {
        "number": figure_format.number,
        "span": figure_format.span,
        "whole": formatting.whole,
        "plural": formatting.plural,
        "duration": formatting.duration,
        "p_value": formatting.p_text,
        "figure_title": formatting.title,
        **(filters or {}),
    }
    return environment.get_template(template).render(research_only=RESEARCH_ONLY, version=VERSION, **context)
