"""TensorBoard: event files in the run's own folder, written by TensorBoard's own writer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams import summary_v2 as hyperparameters
from tensorboard.plugins.text import metadata as texts
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from chestxray.runs.trackers import Parameter


def _steps(place: Path) -> set[int]:
    """The epochs in the event files of a folder."""
    events = EventAccumulator(str(place))
    events.Reload()
    return {event.step for event in events.Scalars("train/loss")} if "train/loss" in events.Tags()["scalars"] else set()


class TensorBoard:
    """Writes ``trackers/tensorboard``; ``tensorboard --logdir RUNS`` finds it below any folder of runs.

    It keeps no files: the model stays where it is, in the run's folder.
    """

    def begin(self, name: str, parameters: Mapping[str, Parameter], place: Path, earlier: str) -> str:
        """Write the parameters; a resumed run adds a file of events to those of its folder."""
        # There may be an epoch more than we know, where the run was killed between the two.
        self.steps = _steps(place) if earlier else set()
        self.writer = EventFileWriter(str(place))
        if not earlier:
            self._write(hyperparameters.hparams_pb(dict(parameters), trial_id=name), 0)
            listed = "\n".join(f"| {key} | {value} |" for key, value in parameters.items())
            self._text("parameters", f"| parameter | value |\n| --- | --- |\n{listed}", 0)
            self._flush()
        return name

    def epoch(self, step: int, figures: Mapping[str, float]) -> None:
        """Write a scalar for each figure, once."""
        if step not in self.steps:
            self._scalars(step, figures)
            self._flush()

    def finish(self, step: int, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Write a scalar for each figure, the card as text and the pictures as images."""
        self._scalars(step, figures)
        for path in files:
            if path.suffix == ".md":
                self._text("card", path.read_text(encoding="utf-8"), step)
            elif path.suffix == ".png":
                picture = Summary.Image(encoded_image_string=path.read_bytes())
                self._write(Summary(value=[Summary.Value(tag=f"figures/{path.stem}", image=picture)]), step)
        self._flush()

    def close(self, *, finished: bool) -> None:
        """Close the file of events."""
        if hasattr(self, "writer"):
            self.writer.close()

    def _scalars(self, step: int, figures: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(Summary(value=values), step)

    def _text(self, tag: str, text: str, step: int) -> None:
        about = texts.create_summary_metadata(display_name=tag, description="")
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=shape)
        self._write(Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)]), step)

    def _write(self, summary: Summary, step: int) -> None:
        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def _flush(self) -> None:
        # A thread writes: without this an error would be raised an epoch later, or never.
        self.writer.flush()
