"""Inference engine for an exported ONNX file, with ONNX Runtime and without TensorFlow."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.data.images.pixels import Fit
from chestxray.errors import DataError, InputError
from chestxray.evaluation.decision.finding_rule import Rule
from chestxray.inference.engine import Outputs, check_maps
from chestxray.inference.export_metadata import KEY, Description
from chestxray.inference.heat_maps import HeatMaps
from chestxray.storage.files import check_size

#: Most bytes of a file: the limit of a protobuf message.
MOST = 2**31 - 1


@dataclass(frozen=True)
class OnnxEngine:
    """The file at ``path``, as `chestxray export --format onnx` writes it. ``threads`` is
    the most cores used; None: all. ``seconds`` is the time limit of an evaluation; None: no limit.

    Raises:
        InputError: the file does not exist.
        DataError: the file is damaged, or was not made by `chestxray export`.
    """

    path: Path
    threads: int | None = None
    seconds: float | None = None
    _session: Any = field(init=False, repr=False, compare=False)
    _described: Description = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Read here, so that damage is reported at once and no two threads read the file.
        session = _open(self.path, self.threads)
        described = Description.parse(_metadata(session, self.path), self.path)
        _check(session, described, self.path)
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_described", described)

    @property
    def name(self) -> str:
        """The name of the folder of the run that was exported."""
        return self._described.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes or findings, in the order of the outputs."""
        return self._described.decision.classes

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the pixels it takes."""
        return self._described.image_size

    @property
    def fit(self) -> Fit:
        """How images were fitted to the size in training."""
        return self._described.fit

    @property
    def segmenter(self) -> None:
        """None: a run that cuts images to their lungs is not exported."""
        return None

    @property
    def decision(self) -> Rule:
        """The decision rule chosen on validation."""
        return self._described.decision

    @property
    def refusal_threshold(self) -> float | None:
        """The distance above which images are refused; None where the run refuses nothing."""
        return self._described.refusal_threshold

    @property
    def heat_maps(self) -> HeatMaps | None:
        """The scale and the badge of the maps; None where the file has no output of heat maps."""
        return self._described.heat_maps

    def run(self, pixels: np.ndarray, *, maps: bool = False) -> Outputs:
        """As `Engine.run`, in one evaluation with or without maps."""
        if maps:
            check_maps(self)
        wanted = [name for name in self._described.outputs if maps or name not in ("map", "mapped")]
        given = self.answer(pixels[..., np.newaxis], wanted)
        distances = given["distance"].astype(np.float64) if "distance" in given else None
        if "mapped" in given:
            self._require_findings(len(pixels), given)
        return Outputs(given["probabilities"], distances, given.get("map"), given.get("mapped"))

    def _require_findings(self, count: int, given: dict[str, np.ndarray]) -> None:
        """Raise `DataError` where the maps of `count` images are not maps of findings that the file has."""
        maps, mapped = given["map"], given["mapped"]
        if (
            mapped.ndim != 2
            or maps.shape != (count, mapped.shape[1], *self.image_size)
            or mapped.dtype.kind not in "iu"
            or ((mapped < 0) | (mapped >= len(self.classes))).any()
        ):
            raise DataError(
                f"{self.path} does not match its metadata: its heat maps, of shape {maps.shape}, are not those of "
                f"findings numbered 0 to {len(self.classes) - 1}."
            )

    def answer(self, pixels: np.ndarray, outputs: Collection[str]) -> dict[str, np.ndarray]:
        """Return the `outputs` of the file, by name, for `pixels`, uint8 (n, height, width, channels).

        Raises:
            DataError: they cannot be computed.
            TimeoutError: they are not computed within ``seconds``.
        """
        import onnxruntime

        options = onnxruntime.RunOptions()
        # Nodes that only the other outputs need are not computed.
        options.only_execute_path_to_fetches = True
        names = list(outputs)
        with _computable(self.path), _at_most(self.seconds, options):
            return dict(zip(names, self._session.run(names, {"pixels": pixels}, options), strict=True))


@contextmanager
def _at_most(seconds: float | None, options: Any) -> Iterator[None]:
    """End ONNX Runtime's evaluation after `seconds`, between two nodes, also within a loop of the graph."""
    if seconds is None:
        yield
        return
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    late = threading.Event()

    def end() -> None:
        late.set()
        options.terminate = True

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Fail as error:
        if late.is_set():
            raise TimeoutError(f"no answer within {seconds:g} seconds") from error
        raise
    finally:
        timer.cancel()


def session(model: str | bytes, threads: int | None = None) -> Any:
    """Return ONNX Runtime's session on the CPU for `model`: the path of a file, or its content."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Spinning threads would take the cores from other work of the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _check(session: Any, described: Description, path: Path) -> None:
    """Raise `DataError` where the inputs or outputs of the graph differ from the file's metadata."""
    given = [output.name for output in session.get_outputs()]
    lacks = [name for name in ("probabilities", *described.outputs) if name not in given]
    (taken, *others) = session.get_inputs() or [None]
    wanted = (*described.image_size, 1)
    if lacks or "probabilities" not in described.outputs:
        raise DataError(
            f"{path} does not match its metadata: it has no output {', '.join(map(str, lacks)) or 'probabilities'}."
        )
    shape = None if taken is None else taken.shape
    # A side of variable length has a name.
    fits = (
        shape is not None
        and len(shape) == 4
        and all(a in (b, None) or isinstance(a, str) for a, b in zip(shape[1:], wanted, strict=True))
    )
    if others or not fits or taken.name != "pixels":
        raise DataError(f"{path} does not match its metadata: its input must be pixels of {wanted}. Received: {shape}.")


def _open(path: Path, threads: int | None) -> Any:
    try:
        check_size(path, MOST)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}. It must be an ONNX file that `chestxray export` made."
        ) from error
    with _computable(path):
        return session(str(path), threads)


def _metadata(session: Any, path: Path) -> str | None:
    with _computable(path):
        found: str | None = session.get_modelmeta().custom_metadata_map.get(KEY)
    return found


@contextmanager
def _computable(path: Path) -> Iterator[None]:
    """Raise ONNX Runtime's errors on a file as `DataError`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    damaged = (
        states.Fail, states.InvalidProtobuf, states.InvalidGraph, states.InvalidArgument, states.NotImplemented,
        states.RuntimeException, states.NoSuchFile, states.EPFail, states.ModelLoaded,
    )  # fmt: skip
    try:
        yield
    except damaged as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{path} is not an ONNX file that can be computed: {reason}") from error
    except UnicodeDecodeError as error:
        # Names and messages are bytes in the file, and text for Python.
        raise DataError(f"{path} is not an ONNX file that can be computed: it holds text that is not UTF-8.") from error
