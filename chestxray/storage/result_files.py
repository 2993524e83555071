"""Reading the files of a run's folder, each checked against its schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from chestxray.errors import DataError, first_line
from chestxray.storage import schema
from chestxray.storage.result_forms import FORMS, Metrics

if TYPE_CHECKING:
    import pandas as pd


def read(path: Path) -> Any:
    """Return the content of a JSON file of a run's folder, checked against the schema that `FORMS` has for its name.

    Raises:
        DataError: it cannot be read, or is damaged.
    """
    form = FORMS.get(path.name, dict[str, Any])
    if path.name in ("metrics.json", "decision.json"):
        # Those of findings have a form of their own, which the classes that they are read into check.
        content = schema.read(path, dict[str, Any])
        if content.get("task") == "findings":
            return content
    content = schema.read(path, form)
    if path.name == "metrics.json":
        _require_agreement(content, path)
    return content


def _require_agreement(metrics: Metrics, path: Path) -> None:
    classes, counts = metrics["confusion"]["classes"], metrics["confusion"]["counts"]
    lengths = {len(counts), *map(len, counts)}
    if lengths != {len(classes)} or set(metrics["per_class"]) != set(classes):
        raise DataError(f"{path} is damaged: confusion.counts and per_class must be of confusion.classes.")
    if metrics["positive"] not in (None, *classes):
        raise DataError(f"{path} is damaged: positive must be one of {', '.join(classes)}, or null.")


def read_if_any(path: Path) -> Any:
    """Return what `read` returns, or an empty dictionary if there is no such file."""
    return read(path) if path.is_file() else {}


def history(path: Path) -> pd.DataFrame:
    """Return the rows of a ``history.csv``, one per epoch, or per C of a linear probe; what a phase has not is NaN.

    Raises:
        DataError: it cannot be read, or is damaged.
    """
    import pandas as pd

    figures = ("loss", "accuracy", "auroc", "val_loss", "val_accuracy", "val_auroc", "learning_rate", "seconds", "C")
    try:
        # pandas' own parser may change the last digit of a number, so that equal losses would differ.
        table = pd.read_csv(path, dtype={"phase": str}, converters=dict.fromkeys(figures, _number))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {first_line(error)}.") from error
    if not path.read_bytes().endswith(b"\n"):
        raise DataError(f"{path} is damaged: it ends within a line.")
    if "phase" not in table or "val_loss" not in table or table["phase"].isna().any():
        raise DataError(f"{path} is damaged: it has no phase or no val_loss.")
    return table


def _number(text: str) -> float:
    return float(text or "nan")
