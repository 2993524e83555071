"""The features of all images of a data set as a table, and as a Parquet file for other tools."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from chestxray._version import RESEARCH_ONLY, VERSION
from chestxray.data import findings, sources
from chestxray.data.decoded import decode, readable
from chestxray.data.index import COLUMNS, Index
from chestxray.errors import DataError, InputError, OutputError, first_line, require
from chestxray.models import startup
from chestxray.progress.bars import progress
from chestxray.recipe import Recipe
from chestxray.runs import run_folder
from chestxray.storage import schema
from chestxray.storage.files import check_writable, replacing

if TYPE_CHECKING:
    from chestxray.inference.encoder import Encoder, Origin

log = logging.getLogger(__name__)

#: The column of the vectors, and the keys of the file's metadata.
FEATURES = "features"
ENCODER, VERSION_KEY, USE = b"chestxray.encoder", b"chestxray.version", b"chestxray.research_use"
#: The columns beside the vectors; of findings also ``finding:NAME`` for each.
OWN = (*COLUMNS, "unreadable")
#: Fields of a recipe that say which images, those that say how they are read, and those that only a model takes.
OF_DATA = ("path", "data_option", "patient_pattern", "label_pattern", "classes", "map", "drop", "uncertain", "view")
OF_READING = ("max_pixels", "max_unreadable", "cache_gigabytes")
OF_MODEL = ("weights", "image_size", "fit")
#: Images computed between two advances of the progress bar: whole batches.
BLOCK = 1024


@dataclass(frozen=True)
class FeatureTable:
    """``rows``: the columns `OWN` and those of findings, one row an image; ``vectors``: float32 (rows, width), NaN
    where the image is unreadable; ``origin``: the encoder.
    """

    rows: pd.DataFrame
    vectors: np.ndarray
    origin: Origin

    @property
    def readable(self) -> np.ndarray:
        """The places of the rows that have features, int64."""
        return np.flatnonzero((self.rows["unreadable"] == "").to_numpy())

    def frame(self) -> pd.DataFrame:
        """Return the rows with a column ``features``: an array float32 (width,) each, None where unreadable."""
        vectors = pd.Series([None] * len(self.rows), index=self.rows.index, dtype=object)
        for place in self.readable:
            vectors.iat[place] = self.vectors[place]
        return self.rows.assign(**{FEATURES: vectors})

    def write(self, path: Path) -> None:
        """Write it as Parquet, atomically: ``features`` is a list of float32, null where unreadable.

        The type of Arrow for lists of one size would say more, but pyarrow 21 cannot read one with a null from Parquet.

        Raises:
            OutputError: `path` cannot be written.
            MissingPackageError: pyarrow is not installed.
        """
        require("A file of features", "pyarrow")
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(self.rows, preserve_index=False)
        missing = (self.rows["unreadable"] != "").to_numpy()
        flat = pa.array(self.vectors[~missing].reshape(-1), pa.float32())
        ends = np.cumsum(np.where(missing, 0, self.vectors.shape[1]), dtype=np.int64)
        vectors = pa.LargeListArray.from_arrays(np.append(0, ends), flat, mask=pa.array(missing))
        table = table.append_column(FEATURES, vectors)
        said = {ENCODER: json.dumps(self.origin).encode(), VERSION_KEY: VERSION.encode(), USE: RESEARCH_ONLY.encode()}
        with replacing(path) as temporary:
            pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **said}), temporary)

    @classmethod
    def read(cls, path: Path) -> FeatureTable:
        """Read what `write` wrote.

        Raises:
            InputError: there is no such file.
            DataError: it is damaged, or no file of features.
            MissingPackageError: pyarrow is not installed.
        """
        require("A file of features", "pyarrow")
        import pyarrow.parquet as pq

        from chestxray.inference.encoder import Origin

        if not path.is_file():
            raise InputError(f"There is no file {path}. `chestxray features` writes files of features.")
        try:
            table = pq.read_table(path)
            rows = table.drop_columns([FEATURES]).to_pandas()
            origin: Origin = schema.conform(schema.parsed((table.schema.metadata or {})[ENCODER].decode()), Origin)
            column = table.column(FEATURES).combine_chunks()
            vectors = np.full((len(rows), origin["width"]), np.nan, np.float32)
            present = ~column.is_null().to_numpy(zero_copy_only=False)
            vectors[present] = column.flatten().to_numpy(zero_copy_only=False).reshape(present.sum(), -1)
        except Exception as error:  # Arrow, Thrift and pandas each raise their own errors for a damaged file
            raise DataError(
                f"{path} is no file of features that `chestxray features` wrote, or is damaged: {first_line(error)}."
            ) from error
        lacking = [name for name in OWN if name not in rows or not rows[name].map(type).eq(str).all()]
        if lacking or not np.isfinite(vectors[present]).all() or (present != (rows["unreadable"] == "")).any():
            raise DataError(f"{path} is damaged: {', '.join(lacking) or FEATURES} cannot be read.")
        return cls(rows, vectors, origin)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` where no file of features can be written, before hours of computing."""
    if path.suffix.lower() != ".parquet":
        raise OutputError(f"The output must be a Parquet file, with the suffix .parquet. Received: {path}.")
    check_absent(path, overwrite=overwrite)


def check_absent(path: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` if `path` exists and may not be replaced, or is no place for a file."""
    check_writable(path)
    if path.is_dir():
        raise OutputError(f"The output {path} is a folder; it must be a file.")
    if path.exists() and not overwrite:
        raise OutputError(f"The output {path} exists. Allowed: another --output, or --overwrite to replace it.")


def of_run(folder: Path, choices: Mapping[str, Any], cache: Path) -> FeatureTable:
    """Return the features that the network of the run in `folder` makes of the images of ``data`` among `choices`, the
    fields `OF_DATA` and `OF_READING` of a recipe; without it of the run's own, with its splits.

    Raises:
        InputError: no run with a model; a field that is not for a run.
        ChestXrayError: as `compute`, and errors of the data's source.
    """
    refused = OF_MODEL if "data" in choices else (*OF_MODEL, *OF_DATA)
    if odd := [name for name in choices if name in refused]:
        without = "" if odd[0] in OF_MODEL else " without data"
        raise InputError(f"{odd[0]} is not for a run{without}, which has its own. Received: {choices[odd[0]]!r}.")
    if odd := [name for name in choices if name not in ("data", *OF_DATA, *OF_READING)]:
        raise InputError(f"{odd[0]} has no influence on features. Allowed: {', '.join((*OF_DATA, *OF_READING))}.")
    run = run_folder.open_trained(folder, task=None)
    recipe = Recipe().replace(**{"max_pixels": run.recipe.max_pixels, **choices})
    if run.published and not recipe.data:
        raise InputError(f"No data. Name some after {run.published}, such as folder:PATH or phantom.")
    index = sources.load_index(recipe, cache, every_class=False) if recipe.data else run.index
    startup.start()
    from chestxray.inference import encoder

    return compute(encoder.of_run(folder), index, cache, recipe)


def of_model(name: str, choices: Mapping[str, Any], cache: Path) -> FeatureTable:
    """Return the features that the architecture `name` with pretrained weights makes of ``data`` among `choices`, the
    fields `OF_DATA`, `OF_READING` and `OF_MODEL` of a recipe.

    Raises:
        InputError: no data.
        ChestXrayError: as `compute` and `encoder.of_model`, and errors of the data's source.
    """
    recipe = Recipe().replace(**choices)
    if not recipe.data:
        raise InputError("No data. Name some after the model, such as folder:PATH or phantom.")
    startup.start()
    from chestxray.inference import encoder

    weights = None if recipe.weights == "auto" else recipe.weights
    made = encoder.of_model(name, weights, recipe.image_size, recipe.fit)
    return compute(made, sources.load_index(recipe, cache), cache, recipe)


def compute(encoder: Encoder, index: Index, cache: Path, recipe: Recipe) -> FeatureTable:
    """Return the features of the images of `index`, read as the fields `OF_READING` of `recipe` say.

    Each is computed once: the cache keeps what is computed for the next call, and for one after an interruption.

    Raises:
        DataError: more than ``max_unreadable`` of the images are unreadable, or all of a class.
        InputError: features that the cache cannot hold.
        NonFiniteError: a feature is NaN or infinite.
    """
    from chestxray.training.cached_features import too_large
    from chestxray.training.feature_cache import Store, View

    log.info("Features: %s of %s, %d numbers an image.", encoder.layer, encoder.model, encoder.width)
    most, lungs = recipe.max_pixels, encoder.segmenter
    decoded = decode(index, encoder.image_size, encoder.fit, cache, max_pixels=most, lungs=lungs)
    rows = readable(index, decoded, recipe.max_unreadable).rows
    store = Store(encoder.front, decoded.pixels, "float32", cache)
    if reason := too_large(store, {View()}, recipe.cache_gigabytes, cache):
        raise InputError(f"Features are kept in the cache, but {reason}.")
    names = findings.columns(index.classes) if index.task == "findings" else []
    rows = rows[[*COLUMNS, *names, "unreadable"]]
    vectors = np.full((len(rows), encoder.width), np.nan, np.float32)
    good = np.flatnonzero((rows["unreadable"] == "").to_numpy())
    with progress("Computing features", len(good)) as advance:
        for start in range(0, len(good), BLOCK):
            some = good[start : start + BLOCK]
            vectors[some] = store.filled(View(), some)[0][some]
            advance(len(some))
    log.info(
        "Features of %d images, %d numbers each: %d computed in %.1f s.",
        len(good), encoder.width, store.computed, store.seconds,
    )  # fmt: skip
    return FeatureTable(rows, vectors, encoder.origin)
