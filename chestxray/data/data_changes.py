"""Comparing the data of a run with its index: what has changed since the run began."""

from __future__ import annotations

from collections.abc import Sequence

from chestxray.data import lung_boxes
from chestxray.data.index import Index
from chestxray.errors import DataError

#: The column with the box that an image is cut to.
_BOX = lung_boxes.COLUMN
#: Columns that training depends on, and their names in the message.
_TOLD = {"label": "label", "patient": "patient", "source": "source"}


def require_same(began: Index, now: Index, allowed: str) -> None:
    """Check that `now` has the files, labels, patients, sources and, if both are decoded, pixels of `began`.

    A file that was rewritten with the same pixels, or has only another date, has not changed. Images that are cut to
    their lungs must be cut to the same boxes.

    Raises:
        DataError: there are differences; the message counts them, names the first and ends with `allowed`.
    """
    here, there = (index.rows.drop_duplicates("path").set_index("path") for index in (began, now))
    common = here.index.intersection(there.index, sort=False)
    said = [
        _change("new", there.index.difference(common, sort=False)),
        _change("gone", here.index.difference(common, sort=False)),
    ]
    here, there = here.loc[common], there.loc[common]
    said += [
        _change(f"of another {name}", common[(here[column] != there[column]).to_numpy()])
        for column, name in _TOLD.items()
    ]
    if all(hashed in rows for rows in (here, there) for hashed in ("file_hash", "pixel_hash")):
        changed = (here["file_hash"] != there["file_hash"]) & (here["pixel_hash"] != there["pixel_hash"])
        said.append(_change("of other pixels", common[changed.to_numpy(dtype=bool)]))
    if _BOX in here and _BOX in there:
        moved = common[(here[_BOX] != there[_BOX]).to_numpy()]
        said.append(_change("cut to other lungs, by another segmenter than before", moved))
    if differences := list(filter(None, said)):
        raise DataError(
            f"The data of {now.name} have changed since {len(began):,} images of them were split: "
            f"{'; '.join(differences)}. Allowed: {allowed}."
        )


def _change(what: str, paths: Sequence[str], most: int = 3) -> str:
    if not len(paths):
        return ""
    more = ", ..." if len(paths) > most else ""
    return f"{len(paths):,} {'image is' if len(paths) == 1 else 'images are'} {what} ({', '.join(paths[:most])}{more})"
