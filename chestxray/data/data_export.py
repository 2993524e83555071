"""Exporting a data set as it would be trained on (audited, split and decoded), for use in other programs."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from chestxray.data import findings
from chestxray.data.index import SPLITS, Index
from chestxray.data.sources.materialised import png
from chestxray.errors import InputError, OutputError
from chestxray.storage.files import explained

Form = Literal["tfds", "folder", "npz"]
_VERSION = "1.0.0"


def export(index: Index, pixels: np.ndarray, form: Form, folder: str | Path) -> int:
    """Write the rows that are in a split to a new `folder` and return their number. The forms are:

    - ``folder``: ``SPLIT/CLASS/NUMBER.png`` and ``index.csv``, for ``folder:`` and ``manifest:``;
    - ``npz``: one file in MedMNIST's layout, with the ``names`` of the classes, for ``npz:``;
    - ``tfds``: a prepared data set of tensorflow-datasets, for `tfds.builder_from_directory` and
      ``tfds:``.

    `pixels`, uint8 (rows, height, width), has one image per row of `index`. The folder is written
    completely or not at all.

    Of findings there is only ``folder``, as ``SPLIT/NUMBER.png`` and an ``index.csv`` with a column a finding (1, 0,
    -1, empty), for ``manifest:`` with the option ``finding_columns``.

    Raises:
        InputError: findings in another form.
        OutputError: the folder exists and is not empty, or cannot be written.
    """
    if index.task == "findings" and form != "folder":
        raise InputError(f"Data with findings are exported as folder, which has a table. Received: {form}.")
    target = Path(folder).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} is there already. Export to a new folder.")
    partial = target.with_name(f".{target.name}.partial")
    write: Callable[[Index, np.ndarray, Path], None] = {"folder": _folder, "npz": _npz, "tfds": _tfds}[form]
    with explained(target):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            write(index, pixels, partial)
            if target.exists():
                target.rmdir()
            partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return int((index.rows["split"] != "").sum())


def _rows(index: Index, split: str) -> Iterator[tuple[int, Any]]:
    """Return an iterator over (position, row) of a split's rows."""
    return ((row.Index, row) for row in index.rows.itertuples() if row.split == split)


def _folder(index: Index, pixels: np.ndarray, folder: Path) -> None:
    rows = index.rows[index.rows["split"] != ""]
    names = _folder_names(index.classes)
    inner = []
    for place, row in zip(rows.index, rows.itertuples(index=False), strict=True):
        inside = Path(row.split) if index.task == "findings" else Path(row.split) / names[row.label]
        name = inside / f"{place:06d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(pixels[place]))
        inner.append(name.as_posix())
    table = rows.assign(origin=rows["path"].map(lambda path: Path(path).name), path=inner)
    columns = ["path", "label", "patient", "split", "source", "origin"]
    if index.task == "findings":
        states = index.states[rows.index].astype(object)
        states[states == findings.UNKNOWN] = ""
        columns.remove("label")
        table = pd.concat([table[columns], pd.DataFrame(states, index=rows.index, columns=list(index.classes))], axis=1)
        columns = list(table.columns)
    table[columns].to_csv(folder / "index.csv", index=False)


def _npz(index: Index, pixels: np.ndarray, folder: Path) -> None:
    codes = {label: number for number, label in enumerate(index.classes)}
    with zipfile.ZipFile(folder / f"{_safe(index.name)}.npz", "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for split, short in zip(SPLITS, ("train", "val", "test"), strict=True):
            places = [place for place, _ in _rows(index, split)]
            labels = np.array([[codes[row.label]] for _, row in _rows(index, split)], np.uint8).reshape(-1, 1)
            shape = (len(places), *pixels.shape[1:])
            # Row by row, so that memory does not grow with the data set.
            _array(archive, f"{short}_images", np.dtype(np.uint8), shape, (pixels[place] for place in places))
            _array(archive, f"{short}_labels", labels.dtype, labels.shape, iter([labels]))
        names = np.array(index.classes)
        _array(archive, "names", names.dtype, names.shape, iter([names]))


def _array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...], parts: Iterator[np.ndarray]
) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as raw:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(raw, header)
        for part in parts:
            raw.write(np.ascontiguousarray(part).tobytes())


def _tfds(index: Index, pixels: np.ndarray, folder: Path) -> None:
    from chestxray.data.sources.tfds import quiet

    with quiet():
        import tensorflow as tf
        import tensorflow_datasets as tfds

        height, width = pixels.shape[1:]
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(height, width, 1), dtype=np.uint8, encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(index.classes)),
                "patient": tfds.features.Text(),
                "source": tfds.features.Text(),
            }
        )
        signature = {
            "image": tf.TensorSpec((height, width, 1), tf.uint8),
            "label": tf.TensorSpec((), tf.int64),
            "patient": tf.TensorSpec((), tf.string),
            "source": tf.TensorSpec((), tf.string),
        }
        codes = {label: number for number, label in enumerate(index.classes)}

        def examples(split: str) -> Iterator[dict[str, Any]]:
            for place, row in _rows(index, split):
                patient = f"{row.source}/{row.patient}" if row.patient else ""
                label = codes[row.label]
                yield {"image": pixels[place][..., None], "label": label, "patient": patient, "source": row.source}

        present = [split for split in SPLITS if (index.rows["split"] == split).any()]
        sets = {
            split: tf.data.Dataset.from_generator(lambda split=split: examples(split), output_signature=signature)
            for split in present
        }
        name = _safe(index.name).lower()
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version=_VERSION,
            data_dir=str(folder / "made"),
            features=features,
            split_datasets=sets,
            description=f"{index.name}, exported by chestxray. {' '.join(index.notes)}",
            citation=index.citation,
            disable_shuffling=True,
        )
    made = next((folder / "made").glob(f"*/{_VERSION}"))
    for file in made.iterdir():
        file.replace(folder / file.name)
    shutil.rmtree(folder / "made")


def _folder_names(classes: tuple[str, ...]) -> dict[str, str]:
    """Return the folder name of each class: the class itself, without characters that file systems refuse."""
    names: dict[str, str] = {}
    for label in classes:
        name = re.sub(r'[/\\:*?"<>|\x00-\x1f]+', "_", label).strip(". ") or "_"
        names[label] = name if name not in names.values() else f"{name}_{len(names)}"
    return names


def _safe(name: str) -> str:
    text = re.sub(r"[^\w.-]+", "_", name).strip("._") or "data"
    return text if text[0].isalpha() else f"data_{text}"
