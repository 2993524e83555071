"""What is to be known of the heat maps that an engine gives: their scale, and what the checks say of the method.

The same in a run, in the metadata of an exported file and on the page. Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

import numpy as np

from chestxray.explanation.map_check import Verdict
from chestxray.storage import schema
from chestxray.storage.schema import Within

Badge: TypeAlias = Literal["passes", "doubtful", "fails", "not checked"]
#: A map whose highest value is a smaller share of the scale is called nearly empty: over a radiograph, at most half
#: opaque, its colours hide 1/40 of the grey at most and can hardly be seen.
FAINT = 0.05


def is_even(raw: np.ndarray) -> bool:
    """Return whether a raw map (height, width) has one value everywhere, but for rounding, and so shows no place."""
    highest = float(raw.max())
    return highest - float(raw.min()) <= 1e-6 * abs(highest)


class Reason(TypedDict):
    """What one check found: its ``title``, its ``verdict`` and a ``sentence`` for a reader who knows no method."""

    title: str
    verdict: Verdict
    sentence: str


class _Json(TypedDict):
    method: str
    unit: str
    highest: Annotated[float, Within(0)]
    scale: str
    badge: Badge
    sentence: str
    reasons: list[Reason]


@dataclass(frozen=True)
class HeatMaps:
    """The heat maps of an engine: every map is shown on one scale, from 0 to ``highest`` in the ``unit`` of the
    ``method``, whatever its own highest value is.

    ``scale`` says in words where ``highest`` comes from. ``badge`` is what the checks of the method's maps say for this
    model, ``sentence`` the same in words, and ``reasons`` are the checks, those that fail first.
    """

    method: str
    unit: str
    highest: float
    scale: str
    badge: Badge
    sentence: str
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def from_json(cls, content: Any) -> HeatMaps:
        """Return what `to_json` gave. Raises `ValueError` where `content` is something else."""
        found: _Json = schema.conform(content, _Json, "heat_maps")
        return cls(
            method=found["method"],
            unit=found["unit"],
            highest=found["highest"],
            scale=found["scale"],
            badge=found["badge"],
            sentence=found["sentence"],
            reasons=tuple(found["reasons"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return asdict(self) | {"reasons": list(self.reasons)}

    def on_scale(self, raw: np.ndarray) -> np.ndarray:
        """Return raw maps of any shape in 0..1 on the scale; 0 where the scale has no end (``highest`` is 0)."""
        return np.clip(raw / self.highest, 0, 1) if self.highest > 0 else np.zeros_like(raw)

    def is_faint(self, raw: np.ndarray) -> bool:
        """Whether a raw map (height, width) is empty, or nearly so on the scale."""
        return bool(raw.max() <= FAINT * self.highest)

    def words(self, raw: np.ndarray) -> str:
        """Return a sentence on the highest value of a raw map (height, width), beside the end of the scale."""
        highest = float(raw.max())
        own, end = f"{highest:.3g}", f"{self.highest:.3g}"
        if highest <= 0:
            return "This map is empty: the method finds no place that speaks for the answer."
        if is_even(raw):
            return f"This map is {own} everywhere: it shows no place."
        if not self.highest:
            return f"This map is not drawn: its highest value is {own}, and the scale has no end."
        if self.is_faint(raw):
            return f"This map is nearly empty: its highest value is {own}, and the scale ends at {end}."
        if highest > self.highest:
            return f"The highest value of this map is {own}, beyond the end of the scale, {end}."
        return f"The highest value of this map is {own}; the scale ends at {end}."
