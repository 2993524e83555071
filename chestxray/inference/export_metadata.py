"""Metadata in an exported file: how its input is prepared and its outputs are read. Needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from chestxray.data.images.pixels import FILTER, Fit
from chestxray.errors import DataError
from chestxray.evaluation.decision import finding_rule
from chestxray.evaluation.decision.finding_rule import FindingDecision, Rule
from chestxray.inference.heat_maps import HeatMaps
from chestxray.recipe import LARGEST_SIDE
from chestxray.storage import schema
from chestxray.storage.schema import Within

#: Name of the metadata among the properties of an ONNX file; as a file, in the ZIP part of a LiteRT or Keras file
#: and in ``assets.extra`` of a SavedModel.
KEY = "chestxray"
FILE = f"{KEY}.json"
#: Possible outputs of a file, in this order. ``mapped``, of a file of findings, says which ones have a map.
OUTPUTS = ("probabilities", "map", "mapped", "distance")


class _Description(TypedDict):
    name: str
    model: str
    image_size: list[Annotated[int, Within(1, LARGEST_SIDE)]]
    fit: Fit
    outputs: list[Literal["probabilities", "map", "mapped", "distance"]]
    decision: dict[str, Any]
    refusal_threshold: float | None
    heat_maps: NotRequired[dict[str, Any] | None]
    preprocessing: NotRequired[dict[str, Any]]


@dataclass(frozen=True)
class Description:
    """The run behind an exported file, its input and its outputs."""

    name: str
    model: str
    image_size: tuple[int, int]
    fit: Fit
    outputs: tuple[str, ...]
    decision: Rule
    refusal_threshold: float | None
    heat_maps: HeatMaps | None

    @classmethod
    def parse(cls, text: str | None, path: Path) -> Description:
        """Parse the JSON `text` found in the file `path`.

        Raises:
            DataError: it is missing or damaged, asks for another preparation of images than this version has, or states
            no scale of the file's heat maps.
        """
        if text is None:
            raise DataError(f"{path} was not made by `chestxray export`: it has no metadata.")
        try:
            found: _Description = schema.conform(schema.parsed(text), _Description)
            height, width = found["image_size"]
            resize = _filter(found.get("preprocessing", {}))
            if resize != FILTER.name.lower():
                raise DataError(
                    f"{path} wants images resized with the filter {resize}; this version of chestxray has "
                    f"{FILTER.name.lower()}. Export the run again, or use the version that exported it."
                )
            maps = found.get("heat_maps")
            if "map" in found["outputs"] and maps is None:
                raise DataError(
                    f"{path} states no scale of its heat maps: an earlier version of chestxray exported it, which "
                    "scaled each map by its own values. Export the run again."
                )
            decision = finding_rule.from_json(found["decision"])
            _require_mapped(found["outputs"], decision)
            return cls(
                name=found["name"],
                model=found["model"],
                image_size=(height, width),
                fit=found["fit"],
                outputs=tuple(found["outputs"]),
                decision=decision,
                refusal_threshold=found["refusal_threshold"],
                heat_maps=HeatMaps.from_json(maps) if "map" in found["outputs"] else None,
            )
        except ValueError as error:
            raise DataError(f"{path} is damaged: its metadata cannot be read: {error}.") from error


def _require_mapped(outputs: Collection[str], decision: Rule) -> None:
    """Raise ValueError unless a file says of which findings its maps are, and of classes nothing of the kind."""
    if ("mapped" in outputs) != (isinstance(decision, FindingDecision) and "map" in outputs):
        raise ValueError("outputs must have mapped where there is a map of findings, and only there")


def _filter(preprocessing: dict[str, Any]) -> str:
    """Return the resampling filter for images; files of earlier versions do not name it and used the current one."""
    resize = schema.conform(preprocessing.get("resize", {}), dict[str, Any], "preprocessing.resize")
    return schema.conform(resize.get("filter", FILTER.name.lower()), str, "preprocessing.resize.filter")
