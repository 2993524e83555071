"""The image files below a folder, found by the names that a table gives them, in any depth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from chestxray.data.images.listing import walk
from chestxray.data.images.reading import SUFFIXES
from chestxray.errors import DataError

#: Folders are told apart by this many of the last parts of a path.
_DEEPEST = 8


def find_files(root: Path, given: pd.Series) -> pd.Series:
    """Return the absolute path of each file that `given` names, ``""`` for those that are not there.

    The folder is listed only if a name is not simply the path of a file below it.

    Raises:
        DataError: as `FilesBelow`.
    """
    given = given.astype(object)
    direct = f"{root}{os.sep}" + given
    if all(os.path.isfile(path) for path in direct):  # noqa: PTH113 - a Path for each of 100,000 files costs seconds
        return direct
    return FilesBelow.of(root).find(given)


@dataclass(frozen=True)
class FilesBelow:
    """The image files below ``root``: their paths relative to it, with ``/``, sorted."""

    root: Path
    inner: pd.Series

    @classmethod
    def of(cls, root: Path) -> FilesBelow:
        """List the files once. Hidden files and folders and ``__MACOSX`` are left out, links are followed.

        Raises:
            DataError: a folder that cannot be listed, so that files would be missing.
        """
        refused: list[OSError] = []
        found: list[str] = []
        endings = tuple(SUFFIXES)
        for _, place, names in walk(root, lambda _, name: name != "__MACOSX", refused.append):
            inside = f"{place}/" if place else ""
            found += [inside + name for name in names if name.lower().endswith(endings)]
        if refused:
            raise DataError(f"The folder {refused[0].filename} cannot be listed: {refused[0].strerror}.")
        return cls(root, pd.Series(sorted(found), dtype=object))

    def find(self, given: pd.Series) -> pd.Series:
        """Return the absolute path of each file, ``""`` for those that are not there.

        `given`: names or paths, str. An absolute path, and one that is so below the root, is itself; else the file
        is the only one of that name at any depth. If several have the name, the folders above it in `given` decide;
        if there is none of the name, the name without its suffix does.

        Raises:
            DataError: a name that several files have and that its folders do not tell apart.
        """
        names = pd.Series(given.unique(), dtype=object)
        text = names.str.replace("\\", "/", regex=False).str.removeprefix("./")
        inner = text.map(dict(zip(self.inner, self.inner, strict=True)))
        for bare in (False, True):
            missing = inner.isna() & ~text.str.startswith("/")
            if missing.any():
                wanted, there = text[missing], self.inner
                if bare:
                    wanted, there = _without_suffix(wanted), _without_suffix(there)
                inner = _filled(inner, self._by_last_parts(wanted, there))
        whole = (f"{self.root}{os.sep}" + inner).where(inner.notna(), "")
        whole = whole.mask(text.map(os.path.isabs), names)
        return given.map(dict(zip(names, whole, strict=True)))

    def _by_last_parts(self, wanted: pd.Series, there: pd.Series) -> pd.Series:
        """Return the inner path of the only file that ends in as few of the last parts of each path as tell it."""
        found = pd.Series(None, index=wanted.index, dtype=object)
        for parts in range(1, _DEEPEST + 1):
            short = wanted.str.count("/") + 1 < parts
            if short.any():
                self._refuse(wanted[short])
                wanted = wanted[~short]
            if wanted.empty:
                break
            ends, asked = _last(there, parts), _last(wanted, parts)
            several = ends.duplicated(keep=False)
            found = _filled(found, asked.map(dict(zip(ends[~several], self.inner[~several], strict=True))))
            wanted = wanted[asked.isin(set(ends[several]))]
        return found

    def _refuse(self, ambiguous: pd.Series) -> None:
        name = str(ambiguous.iloc[0])
        bare = _without_suffix(_last(ambiguous[:1], 1)).iloc[0]
        same = self.inner[_without_suffix(_last(self.inner, 1)) == bare]
        raise DataError(
            f"Several files below {self.root} have the name {name}: {', '.join(same[:3])} ({len(ambiguous):,} names of "
            "the table do not say which file is meant). Say below which folder they lie: --data-option root=DIR."
        )


def _last(paths: pd.Series, parts: int) -> pd.Series:
    """Return the last `parts` parts of each path."""
    return paths.map(lambda path: "/".join(path.rsplit("/", parts)[-parts:]))


def _filled(values: pd.Series, others: pd.Series) -> pd.Series:
    """Return `values` with what is missing taken from `others`, by index. pandas's own would guess another type."""
    filled = values.astype(object)
    missing = filled.index[filled.isna()].intersection(others.index)
    filled[missing] = others[missing].astype(object)
    return filled


def _without_suffix(paths: pd.Series) -> pd.Series:
    return paths.map(lambda path: os.path.splitext(path)[0] if path.lower().endswith(tuple(SUFFIXES)) else path)  # noqa: PTH122
