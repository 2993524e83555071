"""The state of a control: it fires, is excluded, or is undecided. `controls` has the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chestxray.evaluation.shortcuts.scores import Area, share
from chestxray.evaluation.shortcuts.verdict import EXCLUDED, LIMIT, SHARE


def of_leak(classes: Sequence[str], learnt: tuple[Area, ...], widened: float) -> dict[str, Any]:
    """Return the state of a leak from the learnable AUROC of each class."""
    names = classes if len(classes) > 2 else (None,)
    lows = [area.figure(widened).low for area in learnt]
    figures = [area.figure() for area in learnt]
    known = [k for k, figure in enumerate(figures) if figure.value is not None]
    surest = max(range(len(learnt)), key=lambda k: lows[k] or 0.0)
    fires = (lows[surest] or 0.0) > LIMIT
    # What cannot be excluded is the highest upper end of any class, where all have an interval.
    bounded = bool(known) and all(figures[k].high is not None for k in known)
    widest = max(known, key=lambda k: figures[k].high or 0.0, default=surest)
    up_to = figures[widest].high if bounded else None
    reported_class = surest if fires else widest
    excluded = up_to is not None and up_to < EXCLUDED
    return {
        "learnt": {"class": names[reported_class], "auroc": figures[reported_class].to_json()},
        "widened_low": lows[reported_class],
        "limit": LIMIT,
        "up_to": up_to,
        "state": "fires" if fires else "excluded" if excluded else "undecided",
    }


def of_likeness(control: Area, model: Area, widened: float) -> dict[str, Any]:
    """Return the state of a likeness from its share of the model's gain on the test."""
    of_gain, sure = share(control, model), share(control, model, widened)
    low = control.figure(widened).low
    fires = sure.value is not None and sure.low is not None and sure.low > SHARE and low is not None and low > LIMIT
    excluded = of_gain.value is not None and of_gain.high is not None and of_gain.high < SHARE
    return {
        "share": of_gain.to_json(),
        "learnt": None,
        "widened_low": sure.low,
        "limit": SHARE,
        "up_to": of_gain.high,
        "state": "fires" if fires else "excluded" if excluded else "undecided",
    }
