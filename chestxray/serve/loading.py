"""Loads the models of a server, and tries each before the first request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.errors import DataError, InputError
from chestxray.evaluation.decision.finding_rule import FindingDecision, Rule
from chestxray.inference import opening
from chestxray.inference.answer import answers
from chestxray.inference.engine import Engine, Outputs
from chestxray.inference.onnx_engine import MOST
from chestxray.storage.files import check_size, content

#: Most bytes of a model card with its images.
_MOST_CARD = 50_000_000


@dataclass(frozen=True)
class Served:
    """An engine with its ``key`` in URLs and metrics; ``card``: the path of its model card, HTML; ``fingerprint``: as
    `opening.fingerprint`, empty for an engine without files; ``note``: what is to be known of every answer of a ready
    model, ``""`` of others.
    """

    key: str
    engine: Engine
    card: Path | None
    fingerprint: str = ""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the item of ``/api/models``."""
        return {
            "id": self.key,
            "name": self.engine.name,
            "fingerprint": self.fingerprint,
            "classes": list(self.engine.classes),
            **_rule(self.engine.decision),
            "refusal_threshold": self.engine.refusal_threshold,
            "image_size": list(self.engine.image_size),
            "fit": self.engine.fit,
            "heat_maps": None if self.engine.heat_maps is None else self.engine.heat_maps.to_json(),
            "note": self.note,
            "card": None if self.card is None else f"/models/{self.key}/card",
        }


def _rule(rule: Rule) -> dict[str, Any]:
    """Return what ``/api/models`` tells of a decision rule."""
    if isinstance(rule, FindingDecision):
        return {
            "task": "findings",
            "positive": None,
            "thresholds": {name: float(one.thresholds[name]) for name, one in rule.findings.items()},
            "chosen_by": {name: one.chosen_by for name, one in rule.findings.items()},
            "rule": "Each finding is called present at its own threshold.",
            "coverage": next((one.coverage for one in rule.findings.values() if one.coverage is not None), None),
        }
    return {
        "task": "classes",
        "positive": rule.positive,
        "thresholds": {name: float(value) for name, value in rule.thresholds.items()},
        "chosen_by": None,
        "rule": rule.words,
        "coverage": rule.coverage,
    }


def open_models(paths: Sequence[Path], seconds: float | None = None) -> tuple[Served, ...]:
    """Return the models at `paths`: folders of runs or ensembles, and ONNX files made by `chestxray export`.

    Each model is run on one black image, so that damaged weights are reported at once. An ONNX file needs no
    TensorFlow, and uses one core for an image, since several images are computed at the same time; an evaluation of
    more than `seconds` is ended.

    Raises:
        InputError: no path is given; a path does not exist, is not a run, or has no weights.
        DataError: a damaged file, or one that changes while it is loaded.
    """
    if not paths:
        raise InputError("No model. Name a run's folder, or an ONNX file that `chestxray export` made.")
    served: list[Served] = []
    for path in paths:
        before = None if path.is_dir() else _fingerprint(path)
        engine = _open(path, seconds)
        # A folder is checked by opening it, and its weights are read by the first evaluation.
        before = before or opening.fingerprint(path)
        model = Served(_key(len(served) + 1, len(paths)), engine, _card(path), before, _note(path))
        _try(model, path)
        if opening.fingerprint(path) != before:
            raise DataError(f"{path} changed while it was loaded. Replace a model by moving a whole one to its place.")
        served.append(model)
    return tuple(served)


def _fingerprint(path: Path) -> str | None:
    """Return the fingerprint of a file; None where it is none of a size that could be opened, which `_open` reports."""
    try:
        check_size(path, MOST)
        return opening.fingerprint(path) if opening.is_onnx(path) else None
    except OSError:
        return None


def _try(model: Served, path: Path) -> None:
    """Run the model on one black image and check its outputs, as for a client. Raises `DataError`."""
    engine = model.engine
    try:
        wrong = _wrong(
            engine, engine.run(np.zeros((1, *engine.image_size), np.uint8), maps=engine.heat_maps is not None)
        )
    except TimeoutError as error:
        raise DataError(f"{path} cannot be served: {error}.") from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Metadata of wrong types raise these wherever they are first used.
        raise DataError(f"{path} does not match its metadata: {error!r}.") from error
    if wrong:
        raise DataError(f"{path} does not match its metadata: {wrong}.")


def _wrong(engine: Engine, outputs: Outputs) -> str | None:
    """Return what is wrong with the `outputs` for one image, None if nothing is."""
    if wrong := _wrong_probabilities(engine, outputs.probabilities) or _wrong_maps(engine, outputs):
        return wrong
    if (outputs.distances is None) != (engine.refusal_threshold is None):
        return "it has a refusal threshold and no output of distances, or the reverse"
    if outputs.distances is not None and not (outputs.distances.shape == (1,) and np.isfinite(outputs.distances).all()):
        return "a distance that is not a finite number"
    answers([""], outputs, engine)
    return None


def _wrong_probabilities(engine: Engine, probabilities: np.ndarray) -> str | None:
    of_findings = isinstance(engine.decision, FindingDecision)
    if probabilities.shape != (1, len(engine.classes)):
        task = "findings" if of_findings else "classes"
        return f"probabilities of shape {probabilities.shape} for {len(engine.classes)} {task}"
    shown = ", ".join(f"{value:g}" for value in probabilities[0])
    if of_findings:
        inside = (probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)
        return None if inside.all() else f"probabilities that are not from 0 to 1: {shown}"
    if not (np.isfinite(probabilities).all() and abs(float(probabilities.sum()) - 1) < 1e-2):
        return f"probabilities that do not add up to 1: {shown}"
    return None


def _wrong_maps(engine: Engine, outputs: Outputs) -> str | None:
    maps, mapped = outputs.maps, outputs.mapped
    if maps is None:
        return None
    of_findings = isinstance(engine.decision, FindingDecision)
    if maps.ndim != (4 if of_findings else 3) or len(maps) != 1:
        return f"a heat map of shape {maps.shape[1:]}"
    if not (np.isfinite(maps).all() and maps.min(initial=0) >= 0):
        return "a heat map with values that are not numbers of 0 and more"
    if of_findings and (mapped is None or mapped.shape != maps.shape[:2]):
        return "heat maps without the numbers of their findings"
    if mapped is not None and not ((mapped >= 0) & (mapped < len(engine.classes))).all():
        return f"heat maps of findings that it does not have: {mapped[0].tolist()}"
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
    # An exported file is in export/ in the run's folder, or was copied elsewhere together with the card.
    near = (path,) if path.is_dir() else (path.parent, path.parent.parent)
    return next((found for folder in near if (found := folder / "MODEL_CARD.html").is_file()), None)


def _note(path: Path) -> str:
    if not path.is_dir():
        return ""
    from chestxray.report import published_model
    from chestxray.runs.run_folder import Run

    run = Run(path)
    return published_model.caution(run).text if run.published else ""


def card_text(path: Path) -> str:
    """Return the model card at `path`; bytes that are not UTF-8 are replaced.

    Raises:
        DataError: it cannot be read, or is larger than `_MOST_CARD`.
    """
    try:
        return content(path, _MOST_CARD).decode("utf-8", "replace")
    except OSError as error:
        raise DataError(f"The model card {path} cannot be read: {error.strerror}.") from error
