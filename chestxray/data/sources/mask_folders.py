"""Masks that lie in a folder of their own, as columns of an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from chestxray.data.column_kinds import MASK
from chestxray.data.sources.folder import expanded
from chestxray.errors import DataError, InputError, nearest

#: What names the masks of lungs in the place of a finding.
LUNGS = "lungs"


def column_of(text: str, classes: Sequence[str]) -> tuple[str, Path]:
    """Return the column of an index and the folder that `text` of ``--masks`` names: FOLDER, lungs=FOLDER or
    CLASS=FOLDER.

    Raises:
        InputError: no such folder, or neither a class nor ``lungs`` before the sign.
    """
    name, rest = _parts(text)
    if not (folder := expanded(rest)).is_dir():
        raise _no_folder(text)
    if name not in ("", LUNGS, *classes):
        raise InputError(
            f"masks must be of {LUNGS} or of a class of the data.{nearest(name, [LUNGS, *classes])} Allowed: {LUNGS}, "
            f"{', '.join(classes)}. Received: {name!r}."
        )
    return {"": "mask", LUNGS: "lung_mask"}.get(name, MASK + name), folder


def with_masks(rows: pd.DataFrame, classes: Sequence[str], given: Sequence[str]) -> pd.DataFrame:
    """Return `rows` of an index with the paths of the masks in the folders `given`, see `column_of`: ``mask``,
    ``lung_mask`` and ``mask:CLASS``.

    A mask is a PNG, at any depth, with its image's name, suffix aside; ``""`` for an image without one, unless the
    data have one.

    Raises:
        InputError: no such folder, class or file.
        DataError: a name that several masks or several images have.
    """
    files: dict[str, dict[str, str]] = {}
    for text in given:
        column, folder = column_of(text, classes)
        _collect(folder, files.setdefault(column, {}))
    stems = rows["path"].map(lambda path: Path(path).stem)
    for column, of_name in files.items():
        found = stems.map(of_name).fillna("").astype(object)
        if twice := sorted(stems[(found != "") & stems.duplicated(keep=False)].unique()):
            raise DataError(
                f"Several images have the name of the mask {of_name[twice[0]]}. Allowed: a name of one image alone, or "
                f"a manifest with a column {column} of the masks' paths."
            )
        if not (found != "").any():
            raise InputError(
                f"No file of --masks has the name of an image. Allowed: PNG files named as the images, such as "
                f"{stems.iloc[0]}.png. Received: {', '.join(given)}."
            )
        own = rows[column].fillna("") if column in rows else pd.Series("", index=rows.index, dtype=object)
        rows = rows.assign(**{column: found.where(found != "", own)})
    return rows


def absolute(text: str) -> str:
    """Return `text` of ``--masks`` with an absolute folder. Raises `InputError` where it names none."""
    name, rest = _parts(text)
    folder = str(expanded(rest).absolute())
    return f"{name}={folder}" if name else folder


def _parts(text: str) -> tuple[str, str]:
    """Return what stands before the sign in `text` of ``--masks``, ``""`` where there is none, and the folder.

    Raises:
        InputError: nothing before the sign, or no folder, as where a variable of the shell is empty.
    """
    name, sign, rest = text.partition("=")
    if not sign or expanded(text).is_dir():
        name, sign, rest = "", "", text
    if not rest.strip() or (sign and not name):
        raise _no_folder(text)
    return name, rest


def _no_folder(text: str) -> InputError:
    return InputError(
        f"masks must name a folder of PNG files, as FOLDER, {LUNGS}=FOLDER or CLASS=FOLDER. Received: {text!r}."
    )


def _collect(folder: Path, files: dict[str, str]) -> None:
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() == ".png":
            if file.stem in files:
                raise DataError(f"Two masks have the same name: {files[file.stem]} and {file}. Allowed: one an image.")
            files[file.stem] = str(file.absolute())
