"""The models that a server answers with, opened and tried before the first client comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.errors import DataError, InputError
from chestxray.inference import opening
from chestxray.inference.answer import answers
from chestxray.inference.engine import Engine, Outputs
from chestxray.storage.files import content

#: Bytes of a model card, its pictures in it.
_MOST_CARD = 50_000_000


@dataclass(frozen=True)
class Served:
    """An engine under the ``key`` that addresses and metrics name it by; ``card``: its model card, HTML."""

    key: str
    engine: Engine
    card: Path | None

    def to_json(self) -> dict[str, Any]:
        """What ``/api/models`` says of it."""
        decision = self.engine.decision
        return {
            "id": self.key,
            "name": self.engine.name,
            "classes": list(self.engine.classes),
            "positive": decision.positive,
            "thresholds": {name: float(value) for name, value in decision.thresholds.items()},
            "rule": decision.words,
            "coverage": decision.coverage,
            "refusal_threshold": self.engine.refusal_threshold,
            "image_size": list(self.engine.image_size),
            "fit": self.engine.fit,
            "heat_maps": self.engine.has_maps,
            "card": None if self.card is None else f"/models/{self.key}/card",
        }


def open_models(paths: Sequence[Path], seconds: float | None = None) -> tuple[Served, ...]:
    """The models at `paths`: folders of runs or ensembles, and ONNX files that `chestxray export` made.

    Each answers for one black image before it counts as opened, so that damaged weights are told at
    once. An ONNX file needs no TensorFlow, and computes an image on one core: several images are
    computed at once; one that it computes for more than `seconds` is given up.

    Raises:
        InputError: no path, or no run, no weights, no such file.
        DataError: a damaged file.
    """
    if not paths:
        raise InputError("No model. Name a run's folder, or an ONNX file that `chestxray export` made.")
    served: list[Served] = []
    for path in paths:
        model = Served(_key(len(served) + 1, len(paths)), _open(path, seconds), _card(path))
        _try(model, path)
        served.append(model)
    return tuple(served)


def _try(model: Served, path: Path) -> None:
    """Answer one black image, as a client would be answered."""
    engine = model.engine
    try:
        wrong = _wrong(engine, engine.run(np.zeros((1, *engine.image_size), np.uint8), maps=engine.has_maps))
    except TimeoutError as error:
        raise DataError(f"{path} cannot be served: {error}.") from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # What a description of the wrong kinds leads to, wherever it is first used.
        raise DataError(f"{path} does not answer by what it says of itself: {error!r}.") from error
    if wrong:
        raise DataError(f"{path} answers otherwise than it says of itself: {wrong}.")


def _wrong(engine: Engine, outputs: Outputs) -> str | None:
    """What is wrong with the `outputs` for one image."""
    probabilities, classes = outputs.probabilities, engine.classes
    if probabilities.shape != (1, len(classes)):
        return f"probabilities of shape {probabilities.shape} for {len(classes)} classes"
    if not (np.isfinite(probabilities).all() and abs(float(probabilities.sum()) - 1) < 1e-2):
        return f"probabilities that do not add up to 1: {', '.join(f'{value:g}' for value in probabilities[0])}"
    if (outputs.distances is None) != (engine.refusal_threshold is None):
        return "it refuses by a distance that it does not give, or gives one that it does not refuse by"
    if outputs.distances is not None and not (outputs.distances.shape == (1,) and np.isfinite(outputs.distances).all()):
        return "a distance that is no finite number"
    if outputs.maps is not None and not (outputs.maps.ndim == 3 and len(outputs.maps) == 1):
        return f"a heat map of shape {outputs.maps.shape[1:]}"
    answers([""], outputs, engine, engine.decision.limit)
    return None


def _open(path: Path, seconds: float | None) -> Engine:
    if not path.exists():
        raise InputError(f"No such model: {path}. Allowed: a run's folder, or an ONNX file.")
    if not (path.is_dir() or opening.is_onnx(path)):
        raise InputError(
            f"A model must be a run's folder, or an ONNX file that `chestxray export` made. Received: {path}."
        )
    return opening.open_engine(path, threads=1, seconds=seconds)


def _key(number: int, count: int) -> str:
    return "model" if count == 1 else f"model-{number}"


def _card(path: Path) -> Path | None:
    # An export lies in export/ in the run's folder, or was copied elsewhere together with the card.
    near = (path,) if path.is_dir() else (path.parent, path.parent.parent)
    return next((found for folder in near if (found := folder / "MODEL_CARD.html").is_file()), None)


def card_text(path: Path) -> str:
    """The model card at `path`; what is no UTF-8 in it is shown as such.

    Raises:
        DataError: it cannot be read, or is larger than any card with pictures.
    """
    try:
        return content(path, _MOST_CARD).decode("utf-8", "replace")
    except OSError as error:
        raise DataError(f"The model card {path} cannot be read: {error.strerror}.") from error
