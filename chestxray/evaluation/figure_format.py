"""A figure and its interval as text, in the one form that every table, sentence, plot and card of the package has."""

from __future__ import annotations

from collections.abc import Mapping

#: What is written for a figure that cannot be computed.
ABSENT = "not available"

#: A figure as the JSON files hold it: ``value``, ``low`` and ``high``, None for what cannot be computed.
FigureFields = Mapping[str, float | None]


def number(value: float | None, digits: int = 3) -> str:
    """Return `value` with a fixed number of digits, or `ABSENT`.

    >>> number(0.9534), number(None)
    ('0.953', 'not available')
    """
    return ABSENT if value is None else f"{value:.{digits}f}"


def span(figure: FigureFields | None, digits: int = 3) -> str:
    """Return the two ends of the interval, or ``""`` where there is none.

    >>> span({"value": 0.95, "low": 0.92, "high": 0.97})
    '0.920 to 0.970'
    """
    low, high = (figure or {}).get("low"), (figure or {}).get("high")
    return "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def with_interval(
    figure: FigureFields | None, digits: int = 3, *, level: str = "", absent: str = ABSENT, signed: bool = False
) -> str:
    """Return the value with its interval in brackets, the value alone where there is no interval.

    Args:
        figure: ``value``, ``low`` and ``high``; None or without a value: `absent` is returned.
        digits: digits after the point.
        level: names the interval, as in ``95%``, for sentences whose surroundings do not.
        absent: the text for a figure that cannot be computed.
        signed: writes a plus before a value above 0, for differences.

    >>> auroc = {"value": 0.931, "low": 0.902, "high": 0.951}
    >>> with_interval(auroc), with_interval(auroc, 2, level="95%"), with_interval(None, absent="-")
    ('0.931 (0.902 to 0.951)', '0.93 (95% interval 0.90 to 0.95)', '-')
    """
    value = (figure or {}).get("value")
    if value is None:
        return absent
    text, ends = f"{value:{'+' if signed else ''}.{digits}f}", span(figure, digits)
    if not ends:
        return text
    return f"{text} ({level} interval {ends})" if level else f"{text} ({ends})"


def in_sentence(figure: FigureFields | None, level: str = "95%") -> str:
    """Return `with_interval` for running text: two digits, and the interval named."""
    return with_interval(figure, 2, level=level)
