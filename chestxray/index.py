"""Index: one row an image. What every source returns and every later step reads."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from chestxray.errors import DataError

#: The columns that every index has, all strings. A source may add more (sex, age, view, mask).
COLUMNS = ("path", "label", "patient", "split", "source")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Index:
    """A data set as a table: image files, their labels and what else is known of them.

    ``rows`` has the columns `COLUMNS`:

    - ``path``: absolute path of the image file;
    - ``label``: name of the class;
    - ``patient``: patient identifier, unique within ``source``, or ``""`` where unknown;
    - ``split``: the official split, one of `SPLITS`, or ``""`` where there is none;
    - ``source``: name of the data set that the row came from.

    Further columns are kept and may be used to break results down. ``mask`` (path of a mask of
    the finding) and ``lung_mask`` (path of a mask of the lungs) have a meaning of their own.

    ``classes`` gives the order of the classes, the order of the model's outputs. ``notes`` are
    sentences that a reader must know: rows left out by rule, classes joined.
    """

    rows: pd.DataFrame
    classes: tuple[str, ...]
    name: str
    licence: str = ""
    citation: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def from_records(
        cls,
        records: Iterable[Mapping[str, str]],
        *,
        name: str,
        classes: Iterable[str] | None = None,
        licence: str = "",
        citation: str = "",
        notes: Iterable[str] = (),
    ) -> "Index":
        """Build an index from one mapping an image; missing columns of `COLUMNS` become ``""``.

        Rows are sorted by path, so that the order files were found in never matters. `classes`
        defaults to the labels found, sorted.

        Raises:
            DataError: no record; a label outside `classes`; an unknown split name.

        >>> Index.from_records([{"path": "/a.png", "label": "normal"}], name="demo").classes
        ('normal',)
        """
        rows = pd.DataFrame.from_records(list(records))
        if rows.empty:
            raise DataError(f"No images in {name}: a data set needs at least one image file.")
        for column in COLUMNS:
            default = name if column == "source" else ""
            if column not in rows:
                rows[column] = default
            rows[column] = rows[column].fillna(default).astype(str)
        rows = rows.sort_values("path", kind="stable").reset_index(drop=True)
        rows = rows[[*COLUMNS, *(c for c in rows.columns if c not in COLUMNS)]]
        found = tuple(sorted(rows["label"].unique()))
        order = tuple(classes) if classes is not None else found
        if stray := [label for label in found if label not in order]:
            raise DataError(
                f"{name} has labels that nobody asked for. Allowed: {', '.join(order)}. Received: {', '.join(stray)}."
            )
        if odd := sorted(set(rows["split"]) - {*SPLITS, ""}):
            raise DataError(f"{name} has unknown splits. Allowed: {', '.join(SPLITS)}. Received: {', '.join(odd)}.")
        return cls(rows=rows, classes=order, name=name, licence=licence, citation=citation, notes=tuple(notes))

    def __len__(self) -> int:
        return len(self.rows)

    def replace(self, rows: pd.DataFrame) -> "Index":
        """The same index with other rows (same classes and origin)."""
        return dataclasses.replace(self, rows=rows.reset_index(drop=True))

    def with_classes(self, classes: tuple[str, ...]) -> "Index":
        """The same rows with these classes, of which some may have no rows.

        Raises:
            DataError: a label outside `classes`.
        """
        if stray := sorted(set(self.rows["label"]) - set(classes)):
            raise DataError(
                f"{self.name} has classes that are not trained: {', '.join(stray)}. Allowed: {', '.join(classes)}; "
                f"map them (--map {stray[0]}=CLASS) or leave them out (--drop {stray[0]})."
            )
        return dataclasses.replace(self, classes=classes)

    def clusters(self) -> pd.Series:
        """One key a row: the patient where known, else the row's own path.

        Rows that share a key are not independent: splits keep them together and the bootstrap
        draws them together.
        """
        known = self.rows["source"] + "\0" + self.rows["patient"]
        return known.where(self.rows["patient"] != "", self.rows["path"])

    def counts(self) -> pd.DataFrame:
        """Images by class (rows, in class order) and split (columns)."""
        table = pd.crosstab(self.rows["label"], self.rows["split"])
        return table.reindex(list(self.classes), fill_value=0)

    def write(self, path: Path) -> None:
        """Write the rows as Parquet; classes and origin go into the file's metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(self.rows, preserve_index=False)
        fields = {
            "classes": "\n".join(self.classes),
            "name": self.name,
            "licence": self.licence,
            "citation": self.citation,
            "notes": "\n".join(self.notes),
        }
        metadata = {f"chestxray.{k}".encode(): v.encode() for k, v in fields.items()}
        pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata}), path)

    @classmethod
    def read(cls, path: Path) -> "Index":
        """Read what `write` wrote."""
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        names = ("classes", "name", "licence", "citation", "notes")
        fields = {name: metadata.get(f"chestxray.{name}".encode(), b"").decode() for name in names}
        classes = tuple(fields.pop("classes").split("\n"))
        notes = tuple(filter(None, fields.pop("notes").split("\n")))
        return cls(rows=table.to_pandas(), classes=classes, notes=notes, **fields)


def row_keys(rows: pd.DataFrame) -> pd.MultiIndex:
    """What tells the rows of an index or of predictions apart: (source, path).

    A file that is given to train and to test on stands there twice, of two sources.
    """
    return pd.MultiIndex.from_frame(rows[["source", "path"]])
