"""The models that a server answers with, opened and tried before the first client comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.engine import Engine
from chestxray.errors import InputError


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


def open_models(paths: Sequence[Path]) -> tuple[Served, ...]:
    """The models at `paths`: folders of runs or ensembles, and ONNX files that `chestxray export` made.

    Each answers for one black image before it counts as opened, so that damaged weights are told at
    once. An ONNX file needs no TensorFlow, and computes an image on one core: several images are
    computed at once.

    Raises:
        InputError: no path, or no run, no weights, no such file.
        DataError: a damaged file.
    """
    if not paths:
        raise InputError("No model. Name a run's folder, or an ONNX file that `chestxray export` made.")
    served: list[Served] = []
    for path in paths:
        engine = _open(path)
        engine.run(np.zeros((1, *engine.image_size), np.uint8), maps=engine.has_maps)
        served.append(Served(_key(len(served) + 1, len(paths)), engine, _card(path)))
    return tuple(served)


def _open(path: Path) -> Engine:
    if not path.exists():
        raise InputError(f"No such model: {path}. Allowed: a run's folder, or an ONNX file.")
    if path.is_dir():
        from chestxray import keras_engine

        return keras_engine.load(path)
    if path.suffix.lower() != ".onnx":
        raise InputError(
            f"A model must be a run's folder, or an ONNX file that `chestxray export` made. Received: {path}."
        )
    from chestxray.onnx_engine import OnnxEngine

    return OnnxEngine(path, threads=1)


def _key(number: int, count: int) -> str:
    return "model" if count == 1 else f"model-{number}"


def _card(path: Path) -> Path | None:
    # An export lies in export/ in the run's folder, or was copied elsewhere together with the card.
    near = (path,) if path.is_dir() else (path.parent, path.parent.parent)
    return next((found for folder in near if (found := folder / "MODEL_CARD.html").is_file()), None)
