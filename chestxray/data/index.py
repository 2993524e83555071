"""Index: the table of images, one row per image, that every source returns and every later step reads."""

import dataclasses
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from chestxray.data import column_kinds, findings
from chestxray.data.column_kinds import Kind
from chestxray.data.findings import Uncertain
from chestxray.data.grouping import patient_keys
from chestxray.errors import DataError, first_line, require
from chestxray.storage import checksums
from chestxray.storage.schema import LONGEST_NAME

#: The columns that every index has, all strings. A source may add more (sex, age, view, mask).
COLUMNS = ("path", "label", "patient", "split", "source")
SPLITS = ("train", "validation", "test")
Task = Literal["classes", "findings"]
#: The name of the column, in tables, of rows that are in no split.
NO_SPLIT = "no split"
#: Further columns, and the headings that public tables use for them (spellings are compared by `key`).
MEANINGS = {
    "sex": ("sex", "gender", "patient sex", "patient gender", "patient's sex"),
    "age": ("age", "patient age", "patient's age", "age years", "age in years", "age at study"),
    "view": ("view", "view position", "projection"),
    "site": ("site", "hospital", "institution", "centre", "center"),
}


def key(name: str) -> str:
    """Return a key that is equal for two spellings of one name that differ in case, spaces or punctuation only.

    >>> key("No_findings") == key("no findings")
    True
    """
    return re.sub(r"[\W_]+", "", name.casefold()) or name.casefold()


def column_of(heading: str, columns: Iterable[str]) -> str | None:
    """Return the column that `heading` means, or None: the same spelling, else another spelling, else a synonym.

    >>> column_of("Patient Age", ["sex", "age"]), column_of("age", ["Patient_Age"]), column_of("ag", ["age"])
    ('age', 'Patient_Age', None)
    """
    columns = list(columns)
    for same in (str.strip, key, _meaning):
        for column in columns:
            if same(column) == same(heading):
                return column
    return None


def column_name(heading: str) -> str:
    """Return the name that the column with this heading has in an index.

    >>> column_name("Patient Gender"), column_name("Follow-up #")
    ('sex', 'follow-up_#')
    """
    meant = _meaning(heading)
    return meant if meant in MEANINGS else re.sub(r"\s+", "_", heading.strip().lower())


def _meaning(heading: str) -> str:
    own = key(heading)
    return next((name for name, headings in MEANINGS.items() if own in map(key, headings)), own)


@dataclass(frozen=True)
class Patients:
    """Number of patients of some images: ``known`` is the number of identified patients, None if no image has
    a patient identifier; ``unknown`` is the number of images without one.
    """

    known: int | None
    unknown: int

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Patients":
        """Count the patients of `rows` by the columns source and patient. Two sources never share a patient."""
        named = rows.loc[rows["patient"] != "", ["source", "patient"]]
        return cls(len(named.drop_duplicates()) or None, len(rows) - len(named))

    def to_json(self) -> dict[str, int | None]:
        """Return the two fields that accompany the number of ``rows`` in every file of figures."""
        return {"patients": self.known, "images_of_unknown_patients": self.unknown}

    @classmethod
    def from_json(cls, content: Mapping[str, int | None]) -> "Patients":
        """Return the object that `to_json` wrote; `content` may have other fields."""
        known, unknown = content["patients"], content["images_of_unknown_patients"]
        return cls(None if known is None else int(known), int(unknown or 0))

    def __str__(self) -> str:
        """Describe the number of patients in words.

        >>> str(Patients(73, 0)), str(Patients(None, 12)), str(Patients(73, 12))
        ('73 patients', 'unknown patients', '73 patients and, for 12 images, unknown ones')
        """
        if self.known is None:
            return "unknown patients"
        known = f"{self.known:,} patient{'' if self.known == 1 else 's'}"
        images = f"{self.unknown:,} image{'' if self.unknown == 1 else 's'}"
        return f"{known} and, for {images}, unknown ones" if self.unknown else known


@dataclass(frozen=True)
class Index:
    """A data set as a table: image files, their labels and what else is known of them.

    ``rows`` has the columns `COLUMNS`:

    - ``path``: absolute path of the image file;
    - ``label``: name of the class;
    - ``patient``: patient identifier, unique within ``source``, or ``""`` if unknown;
    - ``split``: the official split, one of `SPLITS`, or ``""`` if there is none;
    - ``source``: name of the data set that the row came from.

    Further columns are kept and may be used to break results down. ``mask`` (path of a mask of
    the finding), ``lung_mask`` (path of a mask of the lungs), ``boxes`` (see `chestxray.data.boxes`) and ``drawn``
    (True if a program drew the image; set by the source) have a special meaning.

    ``kinds`` says what further columns hold: ``category``; ``number``, NaN where it is not known; ``path`` of a file,
    absolute, or ``""``; ``boxes`` or ``""``. Results can be told by categories and, in bins, by numbers.

    ``classes`` gives the order of the classes, which is that of the model's outputs. ``notes`` are
    sentences that a reader must know: rows left out by rule, classes joined.

    ``task`` says what is asked of an image. ``classes``: which one of the classes it shows. ``findings``: which of
    several findings, none or more, ``classes`` being their names. Then ``rows`` has a column ``finding:NAME`` for each,
    int8 with one of `chestxray.data.findings.STATES`, ``label`` names those that are present, for people, and
    ``uncertain`` says what is done with uncertain ones.
    """

    rows: pd.DataFrame
    classes: tuple[str, ...]
    name: str
    licence: str = ""
    citation: str = ""
    notes: tuple[str, ...] = ()
    task: Task = "classes"
    uncertain: Uncertain = findings.IGNORED
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    @classmethod
    def from_findings(
        cls,
        rows: pd.DataFrame,
        names: Sequence[str],
        *,
        name: str,
        licence: str = "",
        citation: str = "",
        notes: Iterable[str] = (),
        kinds: Mapping[str, Kind] | None = None,
    ) -> "Index":
        """Build an index of findings from rows with a column ``finding:NAME`` for each of `names`.

        Missing columns of `COLUMNS` become ``""``, ``source`` `name`; ``label`` is made from the states. Rows are
        sorted by path.

        Raises:
            DataError: no rows or no findings; a state that is none of `chestxray.data.findings.STATES`; an unknown
                split name; a column that is not of its kind.
        """
        if not names:
            raise DataError(f"{name} has no findings.")
        states = rows[findings.columns(names)].to_numpy()
        if not np.isin(states, findings.STATES).all():
            raise DataError(f"{name} has states of findings that are none of {', '.join(map(str, findings.STATES))}.")
        given = rows.assign(label=findings.labels(states, names))
        given = given.astype(dict.fromkeys(findings.columns(names), np.int8))
        return cls(
            rows=column_kinds.of_kinds(_completed(given, name), kinds or {}, name),
            classes=tuple(names),
            name=name,
            licence=licence,
            citation=citation,
            notes=tuple(notes),
            task="findings",
            kinds=kinds or {},
        )

    @classmethod
    def from_records(
        cls,
        records: Iterable[Mapping[str, Any]],
        *,
        name: str,
        classes: Iterable[str] | None = None,
        licence: str = "",
        citation: str = "",
        notes: Iterable[str] = (),
        kinds: Mapping[str, Kind] | None = None,
    ) -> "Index":
        """Build an index from one mapping per image. Missing columns of `COLUMNS` become ``""``, ``source`` `name`.

        Rows are sorted by path, so that the order in which files were found does not matter. `classes`
        defaults to the labels found, sorted. `kinds` says what further columns hold.

        Raises:
            DataError: no records; a label that is not in `classes`; an unknown split name; a column that is not of
                its kind.

        >>> Index.from_records([{"path": "/a.png", "label": "normal"}], name="demo").classes
        ('normal',)
        """
        rows = _completed(pd.DataFrame.from_records(list(records)), name)
        found = tuple(sorted(rows["label"].unique()))
        order = tuple(classes) if classes is not None else found
        if stray := [label for label in found if label not in order]:
            raise DataError(f"{name} has unexpected labels. Allowed: {', '.join(order)}. Received: {', '.join(stray)}.")
        return cls(
            rows=column_kinds.of_kinds(rows, kinds or {}, name),
            classes=order,
            name=name,
            licence=licence,
            citation=citation,
            notes=tuple(notes),
            kinds=kinds or {},
        )

    @property
    def states(self) -> np.ndarray:
        """With findings, the state of each in each row, one of `chestxray.data.findings.STATES`, int8 (rows,
        findings).
        """
        return self.rows[findings.columns(self.classes)].to_numpy(dtype=np.int8)

    @property
    def targets(self) -> np.ndarray:
        """With findings, what is trained on, float32 (rows, findings): 1, 0, `SOFT`, or NaN where it is not known."""
        return self.uncertain.targets(self.states, self.classes)

    @property
    def truth(self) -> np.ndarray:
        """With findings, what is tested on, float32 (rows, findings): 1, 0, or NaN where it is not known."""
        return self.uncertain.truth(self.states, self.classes)

    def of_finding(self, name: str) -> "Index":
        """Return one finding as a task of two classes, absent and present, on the rows where the truth is known.

        The index of the rows is kept, so that they can be found in the whole table and in arrays beside it.
        """
        truth = self.truth[:, self.classes.index(name)]
        classes = (findings.absent(name), name)
        label = pd.Series(np.where(truth == 1, *reversed(classes)), index=self.rows.index, dtype=object)
        rows = self.rows.assign(label=label)[~np.isnan(truth)]
        # What is done with uncertain findings is settled in these labels.
        return dataclasses.replace(self, rows=rows, classes=classes, task="classes", uncertain=findings.IGNORED)

    def require_names(self) -> None:
        """Raise `DataError` if the name of a class is empty, too long or not printable."""
        for name in self.classes:
            if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
                raise DataError(
                    f"{self.name} has a class that cannot be named. Allowed: 1 to {LONGEST_NAME} characters that can "
                    f"be printed (--map CLASS=NAME gives another). Received: {name[:60]!a}, {len(name):,} characters."
                )

    def kind(self, column: str) -> Kind | None:
        """Return what a further column holds; None where nobody has declared it."""
        return column_kinds.kind_of(column, self.kinds)

    def require_columns(self) -> None:
        """Raise `DataError` if a further column has a reserved name, several types, or a value not of its kind."""
        column_kinds.check(self.rows, COLUMNS, self.kinds, self.name, self.task)

    def __len__(self) -> int:
        return len(self.rows)

    def replace(self, rows: pd.DataFrame) -> "Index":
        """Return the index with other rows and the same classes and origin."""
        return dataclasses.replace(self, rows=rows.reset_index(drop=True))

    def with_classes(self, classes: tuple[str, ...]) -> "Index":
        """Return the index with these classes, some of which may have no rows.

        Of findings, those that the index lacks are not known, and others than `classes` are left out, which its notes
        say.

        Raises:
            DataError: a label that is not in `classes`; none of the findings.
        """
        if self.task == "findings":
            # That module stands on this one.
            from chestxray.data.finding_names import with_findings

            return with_findings(self, classes)
        if stray := sorted(set(self.rows["label"]) - set(classes)):
            raise DataError(
                f"{self.name} has classes that are not trained: {', '.join(stray)}. Allowed: {', '.join(classes)}; "
                f"map them (--map {stray[0]}=CLASS) or leave them out (--drop {stray[0]})."
            )
        return dataclasses.replace(self, classes=classes)

    @property
    def drawn(self) -> pd.Series:
        """Whether a program drew the image, so that no person was X-rayed: bool (rows,)."""
        # A user's column of that name holds text and has no such meaning.
        if "drawn" in self.rows and self.rows["drawn"].dtype == bool:
            return self.rows["drawn"]
        return pd.Series(False, index=self.rows.index)

    def clusters(self) -> pd.Series:
        """Return one key (str) per row: the patient within its source if known, else the row's own path.

        Rows that share a key are not independent: splits keep them together and the bootstrap
        resamples them together.
        """
        return patient_keys(self.rows)

    def members(self, name: str) -> pd.Series:
        """Return whether each image is of the class, or shows the finding, bool (rows,)."""
        if self.task == "findings":
            return self.rows[findings.FINDING + name] == findings.PRESENT
        return self.rows["label"] == name

    def counts(self) -> pd.DataFrame:
        """Return the number of images by class (rows, in class order) and split (columns); of findings, of those in
        which each is present.
        """
        return self._counted(self.rows["split"])

    def counts_by_split(self) -> pd.DataFrame:
        """The same with the splits in their order; images of none in the column ``no split``."""
        table = self._counted(self.rows["split"].replace("", NO_SPLIT))
        return table.reindex(columns=[name for name in (*SPLITS, NO_SPLIT) if name in table])

    def finding_counts(self, by: Literal["split", "source"] = "split") -> pd.DataFrame:
        """Return the number of images by finding and state, in words (rows), and split or source (columns)."""
        columns = self.rows[by].replace("", NO_SPLIT)
        order = [name for name in (*SPLITS, NO_SPLIT) if by == "split"] or sorted(columns.unique())
        order = [name for name in order if (columns == name).any()]
        states = self.states
        parts = [(columns == part).to_numpy() for part in order]
        counted = {
            (name, findings.WORDS[state]): [int((part & (states[:, place] == state)).sum()) for part in parts]
            for place, name in enumerate(self.classes)
            for state in findings.STATES
        }
        rows = pd.MultiIndex.from_tuples(counted, names=["finding", "state"])
        return pd.DataFrame(list(counted.values()), index=rows, columns=pd.Index(order, name=by))

    def counts_by_source(self) -> pd.DataFrame:
        """Images by class (rows, in class order) and source (columns)."""
        return self._counted(self.rows["source"])

    def _counted(self, by: pd.Series) -> pd.DataFrame:
        if self.task == "classes":
            return pd.crosstab(self.rows["label"], by).reindex(list(self.classes), fill_value=0)
        present = pd.DataFrame(self.states == findings.PRESENT, index=self.rows.index, columns=list(self.classes))
        return present.groupby(by.to_numpy()).sum().T.rename_axis(index="label", columns=by.name)

    def _repr_html_(self) -> str:
        """How many images of whom, by class, split and source, and the notes, for a notebook. Names are escaped."""
        head = f"<h4>{html.escape(self.name)}</h4><p>{len(self):,} images of {Patients.of(self.rows)}.</p>"
        of_findings = self.task == "findings"
        what = "finding, state" if of_findings else "class"
        by_split = self.finding_counts() if of_findings else self.counts_by_split()
        tables = f"<p>Images by {what} and split:</p>{by_split.to_html()}"
        if self.rows["source"].nunique() > 1:
            by_source = self.finding_counts("source") if of_findings else self.counts_by_source()
            tables += f"<p>Images by {what} and source:</p>{by_source.to_html()}"
        said = [*self.notes, *([f"Licence: {self.licence}"] if self.licence else [])]
        return head + tables + "".join(f"<p>{html.escape(note)}</p>" for note in said)

    def write(self, path: Path) -> None:
        """Write the rows as Parquet; classes and origin go into the file's metadata."""
        require("A table of images", "pyarrow")
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(self.rows, preserve_index=False)
        fields = {
            "classes": "\n".join(self.classes),
            "name": self.name,
            "licence": self.licence,
            "citation": self.citation,
            "notes": "\n".join(self.notes),
            "task": self.task,
            "uncertain": "\n".join(self.uncertain.to_items()),
            "kinds": json.dumps(dict(self.kinds)),
        }
        metadata = {f"chestxray.{k}".encode(): v.encode() for k, v in fields.items()}
        pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata}), path)

    @classmethod
    def read(cls, path: Path) -> "Index":
        """Read an index that `write` wrote.

        Raises:
            DataError: the file is damaged.
            MissingPackageError: pyarrow is not installed.
        """
        require("A table of images", "pyarrow")
        import pyarrow.parquet as pq

        checksums.check(path)
        try:
            table = pq.read_table(path)
            metadata = table.schema.metadata or {}
            names = ("classes", "name", "licence", "citation", "notes", "task", "uncertain")
            fields = {name: metadata.get(f"chestxray.{name}".encode(), b"").decode() for name in names}
            rows = table.to_pandas()
            # Files of versions without kinds have none.
            kinds = json.loads(metadata.get(b"chestxray.kinds", b"{}"))
            if not set(kinds.values()) <= set(column_kinds.KINDS):
                raise ValueError("it has a kind of column that is unknown")
        except Exception as error:  # Arrow, Thrift and pandas each raise their own errors for a damaged file
            raise DataError(f"{path} is damaged: {first_line(error)}.") from error
        classes = tuple(fields.pop("classes").split("\n"))
        notes = tuple(filter(None, fields.pop("notes").split("\n")))
        # Files of versions that knew one class an image have no task.
        task: Task = "findings" if fields.pop("task") == "findings" else "classes"
        _require_agreement(rows, classes, task, path)
        uncertain = Uncertain.parse(filter(None, fields.pop("uncertain").split("\n")), classes)
        return cls(rows=rows, classes=classes, notes=notes, task=task, uncertain=uncertain, kinds=kinds, **fields)


def _completed(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return `rows` by path, with the `COLUMNS` first, those that are missing being empty. Raises `DataError`."""
    if rows.empty:
        raise DataError(f"No images in {name}: a data set needs at least one image file.")
    filled = {}
    for column in COLUMNS:
        default = name if column == "source" else ""
        given = rows[column] if column in rows else pd.Series(default, index=rows.index, dtype=object)
        filled[column] = given.fillna(default).astype(str)
    rows = rows.assign(**filled).sort_values("path", kind="stable").reset_index(drop=True)
    if odd := sorted(set(rows["split"]) - {*SPLITS, ""}):
        raise DataError(f"{name} has unknown splits. Allowed: {', '.join(SPLITS)}. Received: {', '.join(odd)}.")
    return rows[[*COLUMNS, *(c for c in rows.columns if c not in COLUMNS)]]


def _require_agreement(rows: pd.DataFrame, classes: tuple[str, ...], task: Task, path: Path) -> None:
    """Raise `DataError` if the content of `path` is not an index that chestxray wrote."""
    if missing := [name for name in COLUMNS if name not in rows]:
        raise DataError(f"{path} is damaged: the column {missing[0]} is missing.")
    for name in COLUMNS:
        if not rows[name].map(type).eq(str).all():
            raise DataError(f"{path} is damaged: the column {name} must have text alone.")
    if task == "findings":
        if missing := [name for name in findings.columns(classes) if name not in rows]:
            raise DataError(f"{path} is damaged: the column {missing[0]} is missing.")
        states = rows[findings.columns(classes)]
        if not all(kind.kind == "i" for kind in states.dtypes) or not np.isin(states, findings.STATES).all():
            raise DataError(f"{path} is damaged: a finding has a state that is none of {findings.STATES}.")
    texts = {"split": (*SPLITS, ""), **({"label": classes} if task == "classes" else {})}
    for name, allowed in texts.items():
        if stray := set(rows[name]) - set(allowed):
            raise DataError(
                f"{path} is damaged: the column {name} must have {', '.join(filter(None, allowed))} alone. "
                f"Received: {min(stray)[:200]!r}."
            )
    if len(set(classes)) < len(classes):
        raise DataError(f"{path} is damaged: a class stands twice among {', '.join(classes)}.")


def row_keys(rows: pd.DataFrame) -> pd.MultiIndex:
    """Return the keys that identify the rows of an index or of predictions: (source, path).

    A file that is given both to train and to test on has two rows, with different sources.
    """
    return pd.MultiIndex.from_frame(rows[["source", "path"]])
