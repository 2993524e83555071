"""Figures that plugins compute: on the rows, in the bootstrap's replicates, and with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chestxray import registry
from chestxray.errors import ChestXrayError, InputError, PluginError
from chestxray.evaluation import class_means
from chestxray.evaluation.bootstrap import resamples
from chestxray.evaluation.intervals import Figure, logit_t
from chestxray.evaluation.support import effective
from chestxray.evaluation.weighted_metrics import HEADLINE, LOSSES, Key, span
from chestxray.plugin import MetricPlugin


@dataclass(frozen=True)
class Metric:
    """A metric of a plugin, by the ``name`` of its entry point, which ``distribution`` of ``version`` brings."""

    name: str
    plugin: MetricPlugin
    distribution: str = ""
    version: str = ""

    @classmethod
    def of(cls, name: str, own: Sequence[str] = ()) -> Metric:
        """Load the metric of that name. `own` are figures that could have been meant. Raises as `registry.find`."""
        entry = registry.find(registry.METRICS, name, own)
        return cls(entry.name, registry.load_entry(registry.METRICS, entry), entry.distribution, entry.version)

    def compute(
        self, truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, positive: int | None
    ) -> dict[Key, np.ndarray]:
        """Return the headline figure and, of a metric per class, that of each class, each (replicates,).

        Args:
            truth: class numbers, int (rows,).
            probabilities: float (rows, classes).
            weights: float (replicates, rows), how often each row counts.
            positive: number of the positive class; None: the headline figure is the mean over the classes that have
                rows, NaN where that of one of them cannot be computed.

        Raises:
            PluginError: the plugin fails, or returns something else than figures within its bounds.
        """
        if self.plugin.per == "set":
            return {(None, self.name): self._checked(truth, probabilities, weights)}
        classes = range(probabilities.shape[1])
        found: dict[Key, np.ndarray] = {
            (k, self.name): self._checked(truth == k, probabilities[:, k], weights) for k in classes
        }
        if positive is not None:
            return found | {(None, self.name): found[positive, self.name]}
        parts = [found[k, self.name] for k in classes if (truth == k).any()]
        whole = np.mean(parts, axis=0) if parts else np.full(len(weights), np.nan)
        return found | {(None, self.name): whole}

    def supports(self, truth: np.ndarray, clusters: np.ndarray, classes: int, positive: int | None) -> dict[Key, float]:
        """Return the effective number of patients of each figure: of a class, the fewer of those with and without it.

        `truth` and `clusters` are int (rows,), class numbers and codes of the patients.
        """
        if self.plugin.per == "set":
            return {(None, self.name): effective(clusters)}
        found: dict[Key, float] = {
            (k, self.name): min(effective(clusters[truth == k]), effective(clusters[truth != k]))
            for k in range(classes)
        }
        present = [found[k, self.name] for k in range(classes) if (truth == k).any()]
        whole = found[positive, self.name] if positive is not None else min(present, default=0.0)
        return found | {(None, self.name): whole}

    def _checked(self, truth: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if not len(truth):
            return np.full(len(weights), np.nan)
        broken = f"The metric plugin {self.name} is broken: compute"
        try:
            values = np.asarray(self.plugin.compute(truth, probability, weights), dtype=np.float64)
        except ChestXrayError:
            raise
        except Exception as error:  # of a third party's code
            raise PluginError(f"{broken} failed with {type(error).__name__}: {error}") from error
        if values.shape != (len(weights),):
            raise PluginError(f"{broken} must return (replicates,), here {(len(weights),)}. Received: {values.shape}.")
        low, high = self.plugin.bounds
        tolerance = 1e-9 * (high - low)
        if (values < low - tolerance).any() or (values > high + tolerance).any():
            worst = values[np.nanargmax(np.abs(values - (low + high) / 2))]
            raise PluginError(f"{broken} must keep its bounds, {low:g} to {high:g}. Received: {worst:g}.")
        return np.clip(values, low, high)

    def to_json(self) -> dict[str, Any]:
        """Return what a report says of the metric, so that it can be written where the plugin is not installed."""
        plugin = self.plugin
        return {
            "title": plugin.title,
            "meaning": plugin.meaning,
            "better": "higher" if plugin.higher_is_better else "lower",
            "reference": plugin.reference,
            "distribution": self.distribution,
            "version": self.version,
        }


def loaded(names: Sequence[str]) -> tuple[Metric, ...]:
    """Return the metrics of plugins of these names.

    Raises:
        PluginError: a plugin is unknown or broken.
        InputError: a name of a figure that chestxray computes itself.
    """
    if own := [name for name in names if name in HEADLINE]:
        raise InputError(f"metric names figures of plugins; {own[0]} is in every evaluation. Received: {own[0]!r}.")
    return tuple(Metric.of(name) for name in dict.fromkeys(names))


def of_name(name: str) -> tuple[Metric, ...]:
    """Return the metric of that name, none for one of `HEADLINE`. Raises `InputError` for one that is neither."""
    return () if name in HEADLINE else (Metric.of(name, HEADLINE),)


def lower_is_better(name: str) -> bool:
    """Return whether lower values of the figure `name` are better. Raises as `of_name`."""
    return name in LOSSES or any(not metric.plugin.higher_is_better for metric in of_name(name))


def bounds(key: Key, classes: int, metrics: Sequence[Metric]) -> tuple[float, float]:
    """Return the least and greatest possible value of a figure, one of `metrics` or of ours."""
    return next((metric.plugin.bounds for metric in metrics if metric.name == key[1]), span(key, classes))


@dataclass(frozen=True)
class Measured:
    """The figures of plugins for one training of a model: on the rows, in each replicate, float (replicates,), and the
    effective number of patients of each.
    """

    values: Mapping[Key, float]
    replicates: Mapping[Key, np.ndarray]
    support: Mapping[Key, float]


def points(
    metrics: Sequence[Metric], truth: np.ndarray, probabilities: np.ndarray, positive: int | None
) -> dict[Key, float]:
    """Return the figures on the rows themselves, NaN for one that cannot be computed; arguments as of `Metric`."""
    once = np.ones((1, len(truth)))
    found = [metric.compute(truth, probabilities, once, positive) for metric in metrics]
    return {key: float(values[0]) for one in found for key, values in one.items()}


def measured(
    metrics: Sequence[Metric],
    truth: np.ndarray,
    probabilities: np.ndarray,
    clusters: np.ndarray,
    positive: int | None,
    *,
    replicates: int,
    seed: int,
) -> Measured:
    """Return the figures in the same draws of patients as `bootstrap`; `clusters`, int (rows,), are codes of them."""
    classes = probabilities.shape[1]
    support = [metric.supports(truth, clusters, classes, positive) for metric in metrics]
    blocks: dict[Key, list[np.ndarray]] = {}
    if len(truth) and metrics:
        for weights in resamples(clusters, replicates, seed):
            for metric in metrics:
                for key, values in metric.compute(truth, probabilities, weights, positive).items():
                    blocks.setdefault(key, []).append(values)
    return Measured(
        points(metrics, truth, probabilities, positive),
        {key: np.concatenate(values) for key, values in blocks.items()},
        {key: size for one in support for key, size in one.items()},
    )


def figures(
    metrics: Sequence[Metric], trainings: Sequence[Measured], truth: np.ndarray, positive: int | None
) -> dict[Key, Figure]:
    """Return every figure of `metrics`, the mean over `trainings`, with its 95% interval over other patients.

    A mean over classes combines the intervals of the classes, as our own do (`class_means.mean`).
    """
    values = {key: float(np.mean([one.values[key] for one in trainings])) for key in trainings[0].values}
    drawn = {key: np.mean([one.replicates[key] for one in trainings], axis=0) for key in trainings[0].replicates}
    support = {key: min(one.support[key] for one in trainings) for key in trainings[0].support}
    freedom = {key: size - 1 for key, size in support.items()}
    found: dict[Key, Figure] = {}
    for metric in metrics:
        limits = metric.plugin.bounds
        own = [key for key in values if key[1] == metric.name]
        found |= {key: logit_t(values[key], drawn.get(key, np.empty(0)), support[key], limits) for key in own}
        whole: Key = (None, metric.name)
        if metric.plugin.per == "class" and positive is None and np.isfinite(values[whole]):
            keys: list[Key] = [(int(k), metric.name) for k in np.unique(truth)]
            found[whole] = class_means.mean(values[whole], keys, found, drawn, support, freedom, span=limits)
    return found
