"""What an exported file says of itself: read without TensorFlow, by whoever computes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from chestxray.data.images.pixels import FILTER, Fit
from chestxray.errors import DataError
from chestxray.evaluation.decision.rule import Decision
from chestxray.recipe import LARGEST_SIDE
from chestxray.storage import schema
from chestxray.storage.schema import Within

#: Under this name it stands among the properties of an ONNX file, and with this ending in the ZIP
#: part of a LiteRT or Keras file and in ``assets.extra`` of a SavedModel.
KEY = "chestxray"
FILE = f"{KEY}.json"
#: What a file gives, in this order; a file without one of them keeps the order of the others.
OUTPUTS = ("probabilities", "map", "distance")


class _Description(TypedDict):
    name: str
    model: str
    image_size: list[Annotated[int, Within(1, LARGEST_SIDE)]]
    fit: Fit
    outputs: list[Literal["probabilities", "map", "distance"]]
    decision: dict[str, Any]
    refusal_threshold: float | None
    preprocessing: NotRequired[dict[str, Any]]


@dataclass(frozen=True)
class Description:
    """Of which run a file is, and how it is to be asked and understood."""

    name: str
    model: str
    image_size: tuple[int, int]
    fit: Fit
    outputs: tuple[str, ...]
    decision: Decision
    refusal_threshold: float | None

    @classmethod
    def parse(cls, text: str | None, path: Path) -> Description:
        """Read the JSON `text` that was found in the file `path`.

        Raises:
            DataError: there is none, it is damaged, or its images are to be prepared otherwise than here.
        """
        if text is None:
            raise DataError(f"{path} was not made by `chestxray export`: it does not say how it is to be understood.")
        try:
            found: _Description = schema.conform(schema.parsed(text), _Description)
            height, width = found["image_size"]
            resize = _filter(found.get("preprocessing", {}))
            if resize != FILTER.name.lower():
                raise DataError(
                    f"{path} wants images resized with the filter {resize}; this version of chestxray has "
                    f"{FILTER.name.lower()}. Export the run again, or use the version that exported it."
                )
            return cls(
                name=found["name"],
                model=found["model"],
                image_size=(height, width),
                fit=found["fit"],
                outputs=tuple(found["outputs"]),
                decision=Decision.from_json(found["decision"]),
                refusal_threshold=found["refusal_threshold"],
            )
        except ValueError as error:
            raise DataError(f"{path} is damaged: what it says of itself cannot be read: {error}.") from error


def _filter(preprocessing: dict[str, Any]) -> str:
    """The filter that images are resized with. Files that do not say it are older, and were prepared as now."""
    resize = schema.conform(preprocessing.get("resize", {}), dict[str, Any], "preprocessing.resize")
    return schema.conform(resize.get("filter", FILTER.name.lower()), str, "preprocessing.resize.filter")
