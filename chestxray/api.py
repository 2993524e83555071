"""What is typed in a notebook: a run that answers for new images and explains its answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from chestxray.errors import DataError, InputError
from chestxray.inference.answer import PREFIX, Answer, answered, columns
from chestxray.inference.engine import Engine, Outputs
from chestxray.runs import run_folder

if TYPE_CHECKING:
    from PIL import Image

    from chestxray.recipe import Recipe

#: Paths of files, arrays of grey pixels, or a table with the column path.
Images = Any


@dataclass(frozen=True)
class Explanation:
    """Why one image has its answer.

    ``pixels`` uint8 (height, width), as the model sees the image; ``map`` float32 (height, width) in 0..1, where
    the score of the class decided on comes from.
    """

    answer: Answer
    pixels: np.ndarray
    map: np.ndarray

    def overlay(self, strength: float = 0.5) -> Image.Image:
        """The map laid over the image, `strength` (0 to 1) of it covered where the map is 1."""
        from PIL import Image

        from chestxray.explanation.overlay import overlay

        return Image.fromarray(overlay(self.pixels, self.map, strength))

    def _repr_html_(self) -> str:
        """The overlay with the answer in words, for a notebook."""
        import base64
        import html
        import io

        buffer = io.BytesIO()
        self.overlay().save(buffer, "PNG")
        picture = base64.b64encode(buffer.getvalue()).decode("ascii")
        words = html.escape(self.answer.words)
        return f'<img width="320" alt="heat map" src="data:image/png;base64,{picture}"><p>{words}</p>'


class Run(run_folder.Run):
    """A run's folder, or an ensemble's, and the model in it."""

    @cached_property
    def engine(self) -> Engine:
        """The model ready to answer."""
        from chestxray.inference import keras_engine

        return keras_engine.load_engine(self.folder)

    def predict(self, images: Images, *, batch_size: int = 32) -> pd.DataFrame:
        """The answers for `images`, a row each, decided as `chestxray predict` does.

        Args:
            images: a path or a list of paths (PNG, JPEG, TIFF, BMP, DICOM); an array (n, height, width) or
                (height, width) of grey pixels, uint8 or uint16, of any size; a table with the column path.
            batch_size: images computed at once.

        Returns:
            path (of arrays the number), decision, ``probability_<class>`` for each class, set, abstained,
            refused, distance and unreadable; missing is what the run does not do or what there is none of.

        Raises:
            InputError: something else than images.
        """
        given = [answer for answers, *_ in self._answers(images, batch_size, maps=False) for answer in answers]
        classes = self.engine.classes
        return pd.DataFrame([_row(answer, classes) for answer in given], columns=columns(classes))

    def explain(self, image: Images) -> Explanation:
        """Where in one image, a path or an array (height, width), its answer comes from.

        Raises:
            InputError: the architecture has no layer to explain by; several images.
            DataError: the image cannot be read.
        """
        # Of many images no more are computed than show that there are many.
        given = list(itertools.islice(self._answers(image, 1, maps=True), 2))
        if len(given) != 1:
            raise InputError(f"explain takes one image. Received: {'several' if given else 'none'}.")
        (((answer,), pixels, outputs),) = given
        if outputs is None or outputs.maps is None:
            raise DataError(f"{answer.path} cannot be read: {answer.unreadable}.")
        return Explanation(answer, pixels[0], outputs.maps[0])

    def _answers(
        self, images: Images, batch_size: int, *, maps: bool
    ) -> Iterator[tuple[list[Answer], np.ndarray, Outputs | None]]:
        from chestxray.inference import batch_prediction, keras_engine

        engine, limit = self.engine, self.engine.decision.limit
        if isinstance(images, np.ndarray):
            pixels = _fitted(images, engine)
            for start in range(0, len(pixels), batch_size):
                part = pixels[start : start + batch_size]
                names = [str(start + i) for i in range(len(part))]
                outputs = engine.run(part, maps=maps)
                yield answered(names, [""] * len(part), outputs, engine, limit), part, outputs
            return
        for batch in batch_prediction.predicted(
            engine, _paths(images), batch_size=batch_size, maps=maps, max_pixels=keras_engine.max_pixels(self.folder)
        ):
            given = answered(batch.paths, batch.reasons, batch.outputs, engine, limit)
            yield given, batch.pixels, batch.outputs


def _paths(images: Images) -> list[str]:
    if isinstance(images, (str, Path)):
        return [str(images)]
    if isinstance(images, pd.DataFrame):
        if "path" not in images:
            raise InputError(f"A table of images must have the column path. Received: {', '.join(map(str, images))}.")
        images = images["path"]
    paths = list(images)
    if odd := sorted({type(one).__name__ for one in paths if not isinstance(one, (str, Path))}):
        raise InputError(f"images must be paths, or one array of pixels. Received: a list of {', '.join(odd)}.")
    return [str(path) for path in paths]


def _fitted(images: np.ndarray, engine: Engine) -> np.ndarray:
    """uint8 (n, height, width) at the size of the model's input."""
    from PIL import Image

    from chestxray.data.images.pixels import fitted, scaled_to_uint8

    films = images[np.newaxis] if images.ndim == 2 else images
    if films.ndim != 3 or films.dtype not in (np.uint8, np.uint16) or not films.size:
        raise InputError(
            "An array of images must be (height, width) or (n, height, width), uint8 or uint16. Received: "
            f"{images.shape}, {images.dtype}."
        )
    deep = films.dtype != np.uint8
    return np.stack(
        [
            np.asarray(fitted(Image.fromarray(scaled_to_uint8(film) if deep else film), engine.image_size, engine.fit))
            for film in films
        ]
    )


def _row(answer: Answer, classes: Sequence[str]) -> dict[str, Any]:
    answer_fields = answer.to_json()
    given = {PREFIX + name: answer.probabilities.get(name) for name in classes}
    return {name: value for name, value in answer_fields.items() if name != "probabilities"} | given


def run(
    recipe: Recipe | None = None,
    *,
    output: str | Path | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
    **fields: Any,
) -> Run:
    """Train and evaluate a model: ``run(model="densenet121", data="folder:films", epochs=5)``.

    Args:
        recipe: every choice; default: those of `Recipe`.
        output: the run's folder; default: one below ``runs/`` with time, model and data.
        cache: the cache folder; default: ``chestxray.storage.cache.root``.
        overwrite: replace a run that is in `output`.
        fields: fields of `Recipe`, over those of `recipe`.

    Raises:
        ChestXrayError: anything that a user can mend. Before training starts nothing is left behind;
            afterwards `chestxray run --resume` goes on with what is done.
    """
    from chestxray import workflow
    from chestxray.recipe import Recipe

    chosen = (recipe or Recipe()).replace(**fields)
    return Run(workflow.run(chosen, output=output, cache=cache, overwrite=overwrite).folder)


def load(folder: str | Path) -> Run:
    """Open the folder of a run, of an ensemble, of a pooled cross-validation or of an external evaluation.

    Raises:
        InputError: no such folder, one that was not made by chestxray, or a run that was not finished.
    """
    return Run(run_folder.open_evaluated(folder).folder)
