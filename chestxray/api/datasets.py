"""Data sets for notebooks: read, shown, audited and split exactly as in a run of the same recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd

from chestxray.api.fields import Names, check_data_fields
from chestxray.api.results import AuditResult
from chestxray.data.index import SPLITS, Index
from chestxray.errors import InputError, nearest
from chestxray.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from chestxray.api.fields import DataFields
    from chestxray.workflow import Prepared

#: (height, width) in pixels: the input size of most architectures, so that runs find the images already decoded.
SIZE = (224, 224)
#: Number of further images that may be tried for each image to show, if some are unreadable.
_TRIED = 3


@dataclass(frozen=True)
class DataSet:
    """A data set as loaded from its source by `load_data`.

    Methods that need pixels (`audit`, `split`) decode every image once into the cache, where a run with the same
    image size finds them.
    """

    index: Index
    recipe: Recipe
    cache: Path

    @property
    def rows(self) -> pd.DataFrame:
        """The rows of ``index``, one per image: path, label, patient, official split (empty if none), source, and
        further columns of the source, such as sex, age and view.
        """
        return self.index.rows

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of a model's outputs."""
        return self.index.classes

    def __len__(self) -> int:
        return len(self.index)

    def counts(self) -> pd.DataFrame:
        """Return the number of images by class (rows) and official split (columns, with ``no split`` for none); of
        findings, by finding and state, ``present``, ``absent``, ``uncertain`` or ``not known``.
        """
        return self.index.finding_counts() if self.index.task == "findings" else self.index.counts_by_split()

    def audit(self) -> AuditResult:
        """Return the defects of the data, split as in a run.

        These are copies and patients in several splits, unreadable files, and properties of the files that are
        associated with the class. Leaks are reported and are not an error.

        Raises:
            DataError: the data cannot be split, or too many images cannot be read.
            LeakError: ``on_leak`` is ``drop``, and no training images would be left.
        """
        found = dataclasses.replace(_audit_of(self._prepared), on_leak=self.recipe.on_leak)
        return AuditResult.from_json(found.to_json())

    def split(self) -> Index:
        """Return the index of a run on these data: rows with their split, the columns found by decoding, and, in
        ``audit``, the reason why a row was left out.

        Raises:
            LeakError: an image or a patient is in several splits, and ``on_leak`` is ``stop``.
            DataError: the data cannot be split, or too many images cannot be read.
        """
        from chestxray.data.audit import settle

        prepared = self._prepared
        if self.recipe.on_leak != "stop":
            return prepared.index
        # Leaks that would stop a run raise an error here too.
        return settle(prepared.index, _audit_of(prepared), "stop", self.recipe.split)[0]

    def show(self, n: int = 4, *, label: str | None = None, split: str | None = None) -> Figure:
        """Return a figure with `n` images of each class, one row per class, evenly spaced over the data.

        Args:
            n: number of images per class, 1 to 50.
            label: show only this class.
            split: show only this split of a run: ``train``, ``validation`` or ``test``.

        Raises:
            InputError: `n` is invalid, the class or split is unknown, or none of the images can be read.
        """
        from chestxray.report import figures

        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 50:
            raise InputError(f"n must be a whole number from 1 to 50. Received: {n!r}.")
        for name, value, allowed in (("label", label, self.classes), ("split", split, SPLITS)):
            if value is not None and value not in allowed:
                raise InputError(f"Unknown {name} {value!r}.{nearest(str(value), allowed)} Allowed: {_list(allowed)}.")
        rows = self.rows
        if split is not None:
            # Leaks do not keep anybody from looking.
            rows = self._prepared.index.rows
            rows = rows[rows["split"] == split]
        shown = self.classes if label is None else (label,)
        index = self.index.replace(rows)
        paths = index.rows["path"]
        samples = {one: self._samples(paths[index.members(one)].tolist(), n) for one in shown}
        if not any(samples.values()):
            raise InputError(f"No image of {_list(shown)} can be read{f' in {split}' if split else ''}.")
        return figures.sample_grid({name: images for name, images in samples.items() if images})

    def _samples(self, paths: Sequence[str], count: int) -> list[np.ndarray]:
        from chestxray.data.images.pixels import UnreadableImage
        from chestxray.data.images.reading import read

        assert self.recipe.image_size is not None
        found: list[np.ndarray] = []
        spread = np.linspace(0, len(paths) - 1, min(len(paths), count)).round().astype(int).tolist()
        # Other images replace those that cannot be read.
        others = [place for place in range(min(len(paths), count * _TRIED)) if place not in set(spread)]
        for place in [*spread, *others]:
            if len(found) == count:
                break
            try:
                film = read(
                    Path(paths[place]),
                    size=self.recipe.image_size,
                    fit=self.recipe.fit,
                    max_pixels=self.recipe.max_pixels,
                )
            except UnreadableImage:
                continue
            found.append(film.pixels)
        return found

    @cached_property
    def _prepared(self) -> Prepared:
        """The data as a run prepares them before it builds a model, except that leaks raise no error."""
        from chestxray import workflow

        on_leak = "ignore" if self.recipe.on_leak == "stop" else self.recipe.on_leak
        return workflow.prepare(self.recipe.replace(on_leak=on_leak), self.cache, workflow.Clock())

    def _repr_html_(self) -> str:
        """Return counts by class, split and source, and the number of patients, as HTML for a notebook."""
        return self.index._repr_html_()


def load_data(data: Names, *, cache: str | Path | None = None, **fields: Unpack[DataFields]) -> DataSet:
    """Read data as a run does: ``load_data("folder:films", patient_pattern="(patient[0-9]+)_")``.

    Args:
        data: KIND:ADDRESS, such as ``folder:PATH``, or a name of the catalogue; several data sets are merged.
        cache: the cache folder; default: ``chestxray.storage.cache.root``.
        fields: the fields of `Recipe` that concern data, under the same names. ``image_size`` is 224 pixels by
            default; give that of the run to get the same data.

    Raises:
        InputError: a field is unknown or out of its range, or the data are unknown.
        DataError: the data cannot be downloaded or read.
    """
    from chestxray.data import sources
    from chestxray.progress import show_if_interactive
    from chestxray.storage import cache as caches

    show_if_interactive()
    check_data_fields(fields)
    given: dict[str, Any] = {"image_size": SIZE, **fields, "data": data}
    recipe = sources.absolute(Recipe().replace(**given))
    root = caches.root(cache)
    return DataSet(sources.load_index(recipe, root), recipe, root)


def _audit_of(prepared: Prepared) -> Any:
    assert prepared.audit is not None, "only a run that is gone on with has none"
    return prepared.audit


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
