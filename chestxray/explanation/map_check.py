"""What a check of heat maps found, and the badge that all checks of a method give it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

#: From a model, pixels, uint8 (rows, height, width, channels), and the explained classes, int (rows,): maps, float32
#: (rows, height, width), of 0 and more, in the method's own unit: no map is scaled to its own highest value.
Explain: TypeAlias = Callable[[Any, np.ndarray, np.ndarray], np.ndarray]

Verdict: TypeAlias = Literal["passes", "doubtful", "fails"]


@dataclass(frozen=True)
class MapCheck:
    """The outcome of one check of the heat maps that one method gives for one model.

    ``name``: the check, such as ``cascading-randomisation``; ``sentence``: what was found, with its figures and their
    95% interval, for a reader who knows no method of explanation; ``figures``: the same in JSON types.
    """

    name: str
    verdict: Verdict
    sentence: str
    figures: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the check in JSON types."""
        return asdict(self)


def badge(checks: Sequence[MapCheck]) -> Verdict:
    """Return the verdict on a method: fails where a check fails, else doubtful where one is or none was made."""
    verdicts = {check.verdict for check in checks}
    if "fails" in verdicts:
        return "fails"
    return "doubtful" if "doubtful" in verdicts or not checks else "passes"
