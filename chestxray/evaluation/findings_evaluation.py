"""Evaluates predictions of findings: every figure of each finding on the rows where it is known, and their means."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from chestxray.data.findings import NO_FINDING
from chestxray.data.index import Patients
from chestxray.errors import DataError
from chestxray.evaluation import published_metrics
from chestxray.evaluation.co_occurrence import CoOccurrence
from chestxray.evaluation.evaluate import Estimated, Evaluation, estimated
from chestxray.evaluation.figure_format import with_interval
from chestxray.evaluation.finding_means import Part, means
from chestxray.evaluation.finding_predictions import FindingPredictions, Known
from chestxray.evaluation.intervals import Figure, Interval
from chestxray.evaluation.predictions import PREFIX, Predictions
from chestxray.evaluation.proportions import share

#: The name of "at least one finding is present".
ANY = "any finding"


@dataclass(frozen=True)
class FindingFigures:
    """The figures of one finding as a task of two classes on the rows where it is ``known``.

    ``evaluation`` is None where ``not_scored`` says why there is none.
    """

    known: Known
    evaluation: Evaluation | None
    not_scored: str = ""

    @property
    def test(self) -> Mapping[str, Figure]:
        """The figures by name, none where the finding is not scored."""
        return {} if self.evaluation is None else self.evaluation.test

    def to_json(self) -> dict[str, Any]:
        """``known`` and ``not_scored``, and the fields of the evaluation, which is None where there is none."""
        known = dataclasses.asdict(self.known) | {"prevalence": self.known.prevalence}
        evaluation = None if self.evaluation is None else self.evaluation.to_json()
        return {"known": known, "not_scored": self.not_scored, "evaluation": evaluation}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> FindingFigures:
        """Return the figures from what `to_json` gave."""
        counts = {item.name: int(fields["known"][item.name]) for item in dataclasses.fields(Known)}
        given = fields["evaluation"]
        return cls(Known(**counts), None if given is None else Evaluation.from_json(given), str(fields["not_scored"]))


@dataclass(frozen=True)
class ExactMatch:
    """The share of the images in which every scored finding is decided rightly, of the ``rows`` in which all of them
    are known; ``of_no_finding`` is the share that an answer of no finding for every image would have.
    """

    figure: Figure
    rows: int
    of_no_finding: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields by their names."""
        return {"figure": self.figure.to_json(), "rows": self.rows, "of_no_finding": self.of_no_finding}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ExactMatch:
        """Return the object from what `to_json` gave."""
        none = fields["of_no_finding"]
        return cls(Figure.from_json(fields["figure"]), int(fields["rows"]), None if none is None else float(none))


@dataclass(frozen=True)
class FindingsEvaluation:
    """The figures of a test of findings. Written as ``metrics.json``; docs/run-folder.md explains each field.

    ``test`` has the means over the findings that are scored, with ``prevalence``, the mean of theirs, beside the mean
    AUPRC; ``findings`` has those of each finding. ``any_finding`` are those of "at least one finding is present", which
    is known where one is known to be present or all are known to be absent. ``published`` describes the figures that
    plugins computed.
    """

    test: Mapping[str, Figure]
    prevalence: float | None
    findings: Mapping[str, FindingFigures]
    any_finding: FindingFigures
    exact_match: ExactMatch
    co_occurrence: CoOccurrence
    rows: int
    patients: Patients
    interval: Interval
    published: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the findings, in order."""
        return tuple(self.findings)

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the findings that the means are over."""
        return tuple(name for name, one in self.findings.items() if one.evaluation is not None)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``, None for a figure that cannot be computed."""
        return {
            "task": "findings",
            "test": {name: figure.to_json() for name, figure in self.test.items()},
            "prevalence": self.prevalence,
            "scored": list(self.scored),
            "findings": {name: one.to_json() for name, one in self.findings.items()},
            "any_finding": self.any_finding.to_json(),
            "exact_match": self.exact_match.to_json(),
            "co_occurrence": self.co_occurrence.to_json(),
            "rows": self.rows,
            **self.patients.to_json(),
            "interval": dataclasses.asdict(self.interval),
            **({"published": {name: dict(facts) for name, facts in self.published.items()}} if self.published else {}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FindingsEvaluation:
        """Return the evaluation from what `to_json` gave.

        Raises:
            DataError: `content` does not have that form.
        """
        try:
            if content["task"] != "findings":
                raise ValueError(f"task is {content['task']!r}")
            prevalence = content["prevalence"]
            return cls(
                test={name: Figure.from_json(figure) for name, figure in content["test"].items()},
                prevalence=None if prevalence is None else float(prevalence),
                findings={name: FindingFigures.from_json(one) for name, one in content["findings"].items()},
                any_finding=FindingFigures.from_json(content["any_finding"]),
                exact_match=ExactMatch.from_json(content["exact_match"]),
                co_occurrence=CoOccurrence.from_json(content["co_occurrence"]),
                rows=int(content["rows"]),
                patients=Patients.from_json(content),
                interval=Interval(**content["interval"]),
                published={name: dict(facts) for name, facts in content.get("published", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"These are not the metrics of a test of findings, or those of another version: {error!r}. "
                "`chestxray evaluate RUN` writes them anew."
            ) from error

    def to_frame(self) -> pd.DataFrame:
        """Return the means over the findings that are scored: a row a figure, its name the index, with the columns
        value, low and high (of the 95% interval), NaN for what cannot be computed.
        """
        return _frame({"": self.test}).droplevel(0)

    def findings_to_frame(self) -> pd.DataFrame:
        """The figures of each finding that is scored: rows by finding and figure, columns as of `to_frame`."""
        return _frame({name: one.test for name, one in self.findings.items()})

    def known_to_frame(self) -> pd.DataFrame:
        """How often each finding is known and present: a row a finding, with the fields of `Known`, the prevalence, and
        why it is not scored.
        """
        rows = {name: one.to_json()["known"] | {"not_scored": one.not_scored} for name, one in self.findings.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="finding")

    def _repr_html_(self) -> str:
        """A table for a notebook: a row a finding, and the means."""
        of = f"{self.rows:,} images, {self.patients}; {self.interval.level:.0%} intervals, {self.interval.method}"
        shown = ("auroc", "auprc", "sensitivity", "specificity", "f1", "brier")
        rows = {
            f"mean of {len(self.scored)}": ["", "", _percent(self.prevalence), *_texts(self.test, shown)],
            **{name: _line(one, shown) for name, one in (*self.findings.items(), (ANY, self.any_finding))},
        }
        columns = ["images", "patients with it", "prevalence", *shown]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        unscored = [f"{name} is not scored: {one.not_scored}." for name, one in self.findings.items() if one.not_scored]
        return f"<p>{of}</p>{table.to_html()}" + "".join(f"<p>{html.escape(text)}</p>" for text in unscored)


def evaluate_findings(
    predictions: FindingPredictions, *, replicates: int = 2000, seed: int = 0, metrics: Sequence[str] = ()
) -> FindingsEvaluation:
    """Evaluate the rows of a test of findings, with intervals from a bootstrap clustered by patient.

    Each finding is evaluated as by `evaluate`, as the positive one of two classes, on the rows where it is known. One
    of too few patients (`Known.too_few`) is not scored. Means are over the findings that are scored.

    A film with "any finding" has the probability 1 - prod(1 - p), that of independent findings given the image; its
    calibration shows how far they are. It is called so where a finding is called present.

    Args:
        predictions: the rows of the test; for those of a run, ``run.predictions.of("test")``.
        replicates: number of bootstrap replicates.
        seed: of the random draws.
        metrics: names of further figures, each of a plugin (`MetricPlugin`).

    Raises:
        DataError: values that are not probabilities.
        PluginError: one of `metrics` is unknown or broken.
    """
    further = published_metrics.loaded(metrics)
    rows = predictions.rows.sort_values("path", kind="stable").reset_index(drop=True)
    predictions = FindingPredictions(rows, predictions.findings)
    found, parts = {}, []
    for name in predictions.findings:
        table = predictions.of_finding(name)
        found[name], of_it = _scored(table, name, replicates, seed, metrics)
        if of_it is not None:
            parts.append(Part(of_it, table.rows.index.to_numpy()))
    scored = [name for name, one in found.items() if one.evaluation is not None]
    shares = [one.known.positive / one.known.rows for one in found.values() if one.evaluation is not None]
    return FindingsEvaluation(
        test=means(parts, predictions.clusters, replicates=replicates, seed=seed, metrics=further),
        prevalence=float(np.mean(shares)) if shares else None,
        findings=found,
        any_finding=_scored(of_any(predictions), ANY, replicates, seed, metrics)[0],
        exact_match=_exact_match(predictions, scored, replicates, seed),
        co_occurrence=CoOccurrence.of(predictions),
        rows=len(rows),
        patients=Patients.of(rows),
        interval=Interval(replicates=replicates),
        published={metric.name: metric.to_json() for metric in further},
    )


def of_any(predictions: FindingPredictions) -> Predictions:
    """Return "at least one finding is present" as a task of two classes, on the rows where it is known."""
    truth, none = predictions.truth, np.prod(1 - predictions.probabilities, axis=1)
    present, absent = (truth == 1).any(axis=1), (truth == 0).all(axis=1)
    columns = {
        "label": np.where(present, ANY, NO_FINDING),
        "predicted": np.where(predictions.predicted.any(axis=1), ANY, NO_FINDING),
        PREFIX + NO_FINDING: none,
        PREFIX + ANY: 1 - none,
    }
    rows = predictions.rows[["path", "patient", "split", "source"]].assign(**columns)
    return Predictions(rows[present | absent], (NO_FINDING, ANY))


def from_json(content: Mapping[str, Any]) -> Evaluation | FindingsEvaluation:
    """Return the content of a ``metrics.json`` of either task. Raises `DataError` for content of another form."""
    findings = isinstance(content, Mapping) and content.get("task") == "findings"
    return FindingsEvaluation.from_json(content) if findings else Evaluation.from_json(content)


def _scored(
    table: Predictions, name: str, replicates: int, seed: int, metrics: Sequence[str]
) -> tuple[FindingFigures, Estimated | None]:
    known = Known.of(table, name)
    if known.too_few:
        return FindingFigures(known, None, known.too_few), None
    found = estimated(table, positive=name, replicates=replicates, seed=seed, metrics=metrics)
    return FindingFigures(known, found.evaluation), found


def _exact_match(predictions: FindingPredictions, scored: list[str], replicates: int, seed: int) -> ExactMatch:
    if not scored:
        return ExactMatch(Figure(None, None, None), 0, None)
    columns = [predictions.findings.index(name) for name in scored]
    truth = predictions.truth[:, columns]
    known = ~np.isnan(truth).any(axis=1)
    right = (predictions.predicted[:, columns] == (truth == 1)).all(axis=1)[known]
    figure = share(right, predictions.clusters[known], replicates=replicates, seed=seed)
    none = float((truth[known] == 0).all(axis=1).mean()) if known.any() else None
    return ExactMatch(figure, int(known.sum()), none)


def _frame(figures: Mapping[str, Mapping[str, Figure]]) -> pd.DataFrame:
    rows = {
        (name, figure): [one.value, one.low, one.high] for name, own in figures.items() for figure, one in own.items()
    }
    index = pd.MultiIndex.from_tuples(rows, names=["finding", "figure"])
    return pd.DataFrame(list(rows.values()), index=index, columns=["value", "low", "high"], dtype=np.float64)


def _line(one: FindingFigures, shown: tuple[str, ...]) -> list[str]:
    figures = _texts(one.test, shown) if one.test else ["not scored"] + [""] * (len(shown) - 1)
    return [f"{one.known.rows:,}", f"{one.known.patients_with:,}", _percent(one.known.prevalence), *figures]


def _texts(figures: Mapping[str, Figure], shown: tuple[str, ...]) -> list[str]:
    return [with_interval(figures[name].to_json(), 2, absent="") for name in shown]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
