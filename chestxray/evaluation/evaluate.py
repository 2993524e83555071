"""Evaluates the predictions of a test: every figure with a 95% interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data.index import Patients
from chestxray.errors import DataError, InputError, nearest
from chestxray.evaluation import published_metrics
from chestxray.evaluation.bootstrap import bootstrap
from chestxray.evaluation.calibration.calibration_measures import CalibrationMeasures, measure
from chestxray.evaluation.estimation import Estimates, Scored, estimate
from chestxray.evaluation.intervals import Figure, Interval
from chestxray.evaluation.metrics import points
from chestxray.evaluation.predictions import Predictions
from chestxray.evaluation.weighted_metrics import HEADLINE, PER_CLASS, Key, Table

#: Class names of radiographs without findings, reduced to lower-case letters and digits.
NORMAL = frozenset(
    {"normal", "normals", "clear", "healthy", "unremarkable", "nofinding", "nofindings", "noabnormality"}
    | {"negative", "neg", "none", "absent", "control", "controls"}
)


@dataclass(frozen=True)
class Evaluation:
    """The figures of a test. Written as ``metrics.json``; docs/run-folder.md explains each field.

    ``counts`` is the confusion matrix: true classes in rows, predicted ones in columns. ``calibration`` is None
    in files of versions that did not measure it. ``published`` describes the figures that plugins computed.
    """

    test: Mapping[str, Figure]
    per_class: Mapping[str, Mapping[str, Figure]]
    counts: tuple[tuple[int, ...], ...]
    rows: int
    patients: Patients
    positive: str | None
    interval: Interval
    calibration: CalibrationMeasures | None = None
    published: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return tuple(self.per_class)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``, None for a figure that cannot be computed."""
        return {
            "test": {name: figure.to_json() for name, figure in self.test.items()},
            "per_class": {
                label: {name: figure.to_json() for name, figure in figures.items()}
                for label, figures in self.per_class.items()
            },
            "confusion": {"classes": list(self.classes), "counts": [list(row) for row in self.counts]},
            "rows": self.rows,
            **self.patients.to_json(),
            "positive": self.positive,
            "interval": {
                "level": self.interval.level,
                "method": self.interval.method,
                "replicates": self.interval.replicates,
            },
            **({} if self.calibration is None else {"calibration": self.calibration.to_json()}),
            **({"published": {name: dict(facts) for name, facts in self.published.items()}} if self.published else {}),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the figures of the test, one row each, indexed by name.

        The columns are value, low and high (of the 95% interval), NaN for what cannot be computed.
        """
        return _frame(self.test)

    def classes_to_frame(self) -> pd.DataFrame:
        """Return the figures of each class against the rest: rows by class and figure, columns as of `to_frame`."""
        return pd.concat({label: _frame(figures) for label, figures in self.per_class.items()}, names=["class"])

    def counts_to_frame(self) -> pd.DataFrame:
        """Return the confusion matrix: true classes in rows, predicted ones in columns."""
        names = list(self.classes)
        return pd.DataFrame(self.counts, index=pd.Index(names, name="true"), columns=pd.Index(names, name="predicted"))

    def _repr_html_(self) -> str:
        """Return an HTML table for a notebook."""
        of = f"{self.rows:,} images, {self.patients}; {self.interval.level:.0%} intervals, {self.interval.method}"
        return f"<p>{of}</p>{self.to_frame().round(3).to_html(na_rep='')}"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation from what `to_json` gave.

        Raises:
            DataError: `content` does not have that form.
        """
        try:
            return cls(
                test=_figures(content["test"]),
                per_class={label: _figures(content["per_class"][label]) for label in content["confusion"]["classes"]},
                counts=tuple(tuple(int(n) for n in row) for row in content["confusion"]["counts"]),
                rows=int(content["rows"]),
                patients=Patients.from_json(content),
                positive=content["positive"],
                interval=Interval(**content["interval"]),
                calibration=CalibrationMeasures.from_json(content["calibration"]) if "calibration" in content else None,
                published={name: dict(facts) for name, facts in content.get("published", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"This is not the content of a metrics.json, or is that of another version: {error!r}. "
                "`chestxray evaluate RUN` writes it anew."
            ) from error


def evaluate(
    predictions: Predictions,
    *,
    positive: str | None = None,
    replicates: int = 2000,
    seed: int = 0,
    metrics: Sequence[str] = (),
) -> Evaluation:
    """Evaluate the rows of a test, with intervals from a bootstrap clustered by patient.

    Accuracy, balanced accuracy, sensitivity, specificity, precision, F1 and MCC are computed from the column
    ``predicted``; AUROC, AUPRC, Brier score and calibration error from the probabilities.

    Args:
        predictions: the rows of the test; for those of a run, ``run.predictions.of("test")``.
        positive: of two classes, the one for which sensitivity, specificity, precision, F1, AUROC and AUPRC are
            computed; default: the abnormal one (`abnormal`). With more classes each of them is the mean over the
            classes that have rows.
        replicates: number of bootstrap replicates.
        seed: of the random draws.
        metrics: names of further figures, each of a plugin (`MetricPlugin`).

    Raises:
        InputError: `positive` is not one of the classes, or one of `metrics` is a figure of our own.
        DataError: a label or prediction outside the classes, or values that are not probabilities.
        PluginError: one of `metrics` is unknown or broken.
    """
    return estimated(predictions, positive=positive, replicates=replicates, seed=seed, metrics=metrics).evaluation


@dataclass(frozen=True)
class Estimated:
    """An evaluation with what its intervals were made of: the ``scored`` rows, by path, and their ``clusters``; the
    figures of plugins are ``measured``.
    """

    evaluation: Evaluation
    scored: Scored
    estimates: Estimates
    clusters: np.ndarray
    measured: published_metrics.Measured


def estimated(
    predictions: Predictions, *, positive: str | None, replicates: int, seed: int, metrics: Sequence[str] = ()
) -> Estimated:
    """Return what `evaluate` returns, with what its intervals were made of; arguments and errors as there."""
    check(predictions)
    classes = predictions.classes
    chosen = headline_class(classes, positive)
    # The bootstrap numbers patients by appearance: sorted rows give the same figures in any original order.
    predictions = Predictions(predictions.rows.sort_values("path", kind="stable"), classes)
    truth, predicted, probabilities = predictions.truth, predictions.predicted, predictions.probabilities
    clusters = predictions.clusters
    values = points(truth, predicted, probabilities, chosen)
    replicated: Mapping[Key, np.ndarray] = {}
    if len(truth):
        table = Table.of(truth, predicted, probabilities, chosen)
        # The interval of the calibration error does not come from replicates.
        (replicated,) = bootstrap([table], clusters, replicates=replicates, seed=seed, calibration=False)
    scored = Scored(truth, predicted, probabilities, values, replicated)
    estimates = estimate([scored], clusters, chosen, replicates=replicates, seed=seed)
    figures, (error,) = dict(estimates.figures), estimates.calibration_errors
    further = published_metrics.loaded(metrics)
    measured = published_metrics.measured(
        further, truth, probabilities, clusters, chosen, replicates=replicates, seed=seed
    )
    figures |= published_metrics.figures(further, [measured], truth, chosen)
    headline = (*HEADLINE, *(metric.name for metric in further))
    per_class = (*PER_CLASS, *(metric.name for metric in further if metric.plugin.per == "class"))
    counts = np.zeros((len(classes),) * 2, dtype=np.int64)
    np.add.at(counts, (truth, predicted), 1)
    evaluation = Evaluation(
        test={name: figures[None, name] for name in headline},
        per_class={label: {name: figures[i, name] for name in per_class} for i, label in enumerate(classes)},
        counts=tuple(tuple(row) for row in counts.tolist()),
        rows=len(truth),
        patients=Patients.of(predictions.rows),
        positive=None if chosen is None else classes[chosen],
        interval=Interval(replicates=replicates),
        calibration=measure(truth, probabilities, clusters, classes, chosen, error),
        published={metric.name: metric.to_json() for metric in further},
    )
    return Estimated(evaluation, scored, estimates, clusters, measured)


def check(predictions: Predictions) -> None:
    """Raise `DataError` for predictions that cannot be evaluated."""
    allowed = ", ".join(predictions.classes)
    for column in ("label", "predicted"):
        if stray := sorted(set(predictions.rows[column].astype(str)) - set(predictions.classes)):
            raise DataError(
                f"The column {column} of the predictions names unknown classes. Allowed: {allowed}. "
                f"Received: {', '.join(stray)}."
            )
    probabilities = predictions.probabilities
    # Float32 softmax may end a hair above 1, and tables are rounded.
    good = ((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all(axis=1)
    good &= np.abs(probabilities.sum(axis=1) - 1) < 0.01
    if not good.all():
        paths = predictions.rows["path"][~good].tolist()
        raise DataError(
            f"{len(paths)} rows of the predictions have no probabilities from 0 to 1 that sum to 1, "
            f"the first of them {paths[0]}."
        )


def headline_class(classes: tuple[str, ...], positive: str | None) -> int | None:
    """Return the number of the positive class: of two classes, `positive` or else the abnormal one.

    Returns None with more than two classes: their headline figures are means over classes.

    Raises:
        InputError: `positive` is not one of the classes, or there are more than two.
    """
    if positive is not None and len(classes) != 2:
        raise InputError(
            f"positive is for two classes; with {len(classes)} the figures are means over all of them. "
            f"Received: {positive!r}."
        )
    if positive is not None and positive not in classes:
        raise InputError(
            f"Unknown positive class.{nearest(positive, classes)} Allowed: {', '.join(classes)}. "
            f"Received: {positive!r}."
        )
    if len(classes) != 2:
        return None
    return classes.index(positive) if positive is not None else abnormal(classes)


def abnormal(classes: tuple[str, ...]) -> int:
    """Return the number of the one of two classes that is not named like a normal radiograph, nor ``no OTHER``; else 1.

    >>> abnormal(("PNEUMONIA", "NORMAL")), abnormal(("Edema", "no Edema"))
    (0, 0)
    """
    first, second = (_looks_normal(name) for name in classes)
    return 0 if second > first or (first == second and classes[1] == f"no {classes[0]}") else 1


def _frame(figures: Mapping[str, Figure]) -> pd.DataFrame:
    rows = {name: [figure.value, figure.low, figure.high] for name, figure in figures.items()}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"], dtype=np.float64)
    return frame.rename_axis(index="figure")


def _figures(fields: Mapping[str, Any]) -> dict[str, Figure]:
    return {name: Figure.from_json(figure) for name, figure in fields.items()}


def _looks_normal(name: str) -> bool:
    return "".join(c for c in name.lower() if c.isalnum()) in NORMAL
