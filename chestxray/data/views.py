"""The view of a chest radiograph: frontal (PA, AP) or lateral, as the column ``view`` of an index names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd

from chestxray.data.index import Index, key
from chestxray.errors import DataError, InputError, nearest

#: View -> its names in public sets and DICOM, besides itself. Supine and portable films are AP.
NAMES = {
    "PA": ("postero-anterior", "posteroanterior", "PA erect", "PA upright", "antero-frontal"),
    "AP": (
        "antero-posterior", "anteroposterior", "AP supine", "AP erect", "AP upright", "AP horizontal", "AP portable",
        "AP axial", "AP semi erect", "portable",
    ),
    "frontal": ("front",),
    "lateral": ("L", "LL", "RL", "LAT", "left lateral", "right lateral", "xtable lateral", "lateral decubitus", "RLAT"),
}  # fmt: skip
#: Every image, whatever its view.
ANY = "any"
_FRONTAL = ("PA", "AP", "frontal")
_VIEW_OF = {key(spelling): view for view, names in NAMES.items() for spelling in (view, *names)}


def chosen(index: Index, asked: Sequence[str]) -> Index:
    """Return the index with the images of the views `asked`; a note counts those that were left out.

    `asked`: names of `NAMES` or views as the data spell them, each perhaps several separated by commas; `ANY` keeps
    all. Frontal includes PA and AP. Nothing asked leaves out those that the data call lateral and keeps all others.
    A source that names no view is kept whole, which a note says where views are asked for.

    Raises:
        InputError: no source names a view, or a name that is no view of the data.
        DataError: no image is left.
    """
    names = [part.strip() for text in asked for part in text.split(",") if part.strip()]
    if key(ANY) in map(key, names) or (not names and "view" not in index.rows):
        return index
    if "view" not in index.rows or not (index.rows["view"] != "").any():
        if not names:
            return index
        raise InputError(f"{index.name} has no column of the view (PA, AP, lateral), by which view would choose.")
    rows = index.rows
    own = rows["view"].map({text: key(text) for text in rows["view"].unique()})
    meant = own.map(lambda text: _VIEW_OF.get(text, ""))
    named = (rows["view"] != "").groupby(rows["source"]).transform("any")
    if not names:
        kept = meant != "lateral"
    else:
        _check(names, rows["view"])
        keys, views = set(map(key, names)), {view for name in names for view in _views(name)}
        kept = own.isin(keys) | meant.isin(views) | ~named
    notes = []
    if left_out := int((~kept).sum()):
        counts = rows.loc[~kept, "view"].replace("", "not known").value_counts()
        views_left = ", ".join(f"{view} {number:,}" for view, number in counts.items())
        why = f"kept were {', '.join(names)}" if names else "--view any keeps them"
        notes.append(f"{left_out:,} of {len(rows):,} images were left out by their view ({views_left}); {why}.")
    if names and not named.all():
        sources = ", ".join(sorted(rows.loc[~named, "source"].unique()))
        notes.append(f"{sources}: the view of no image is known, and all {int((~named).sum()):,} were kept.")
    if not kept.any():
        raise DataError(f"No image of {index.name} is left: all were left out by their view.")
    left = index.replace(rows[kept.to_numpy()])
    return dataclasses.replace(left, notes=(*index.notes, *notes))


def _views(name: str) -> tuple[str, ...]:
    """Return the views that a name stands for: only the names of views themselves stand for all of their spellings."""
    view = next((view for view in NAMES if key(view) == key(name)), "")
    return _FRONTAL if view == "frontal" else (view,) if view else ()


def _check(names: Sequence[str], views: pd.Series) -> None:
    found = sorted(set(views) - {""})
    known = set(map(key, found)) | {key(view) for view in NAMES}
    for name in names:
        if key(name) not in known:
            raise InputError(
                f"view names a view that the data do not have: {name!r}.{nearest(name, found)} "
                f"Found: {', '.join(found)}. Allowed besides: {', '.join(NAMES)}, {ANY}."
            )
