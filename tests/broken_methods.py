"""Metrics and other methods, each broken in one way, and the check that is meant for it."""

from dataclasses import replace

import numpy as np

import method_plugins
from chestxray.plugin import MetricPlugin


def _figure(truth, probability, weights):
    return (weights @ np.where(truth, probability, 1 - probability)) / weights.sum(axis=1)


def ignores_weights(truth, probability, weights):
    return np.full(len(weights), _figure(truth, probability, np.ones((1, len(truth))))[0])


def takes_one_replicate(truth, probability, weights):
    return _figure(truth, probability, weights[:1])


def depends_on_order(truth, probability, weights):
    return _figure(truth, probability * np.linspace(0.5, 1, len(truth)), weights)


def by_the_first(truth, probability, weights):
    # Of the rows of weight above 0, so that repeated rows change nothing.
    return np.array([probability[row > 0][0] for row in weights])


def not_a_number(truth, probability, weights):
    return np.full(len(weights), np.nan)


def divides_by_a_class(truth, probability, weights):
    with np.errstate(all="ignore"):
        return np.where(weights @ truth > 0, (weights @ (truth * probability)) / (weights @ truth), np.inf)


def spoils_its_arguments(truth, probability, weights):
    probability[:] = 0
    return _figure(truth, probability, weights)


METRIC = MetricPlugin(
    compute=_figure, title="Given", meaning="Mean probability of what is true.", reference="made", licence="Apache-2.0"
)
BROKEN = {
    "no reference": (replace(METRIC, reference=""), "metadata"),
    "no meaning": (replace(METRIC, meaning=" "), "metadata"),
    "no function": (replace(METRIC, compute=None), "fields"),
    "not a number": (replace(METRIC, compute=not_a_number), "values"),
    "one replicate": (replace(METRIC, compute=takes_one_replicate), "values"),
    "narrower bounds than its values": (replace(METRIC, bounds=(0.9, 1.0)), "values"),
    "spoils its arguments": (replace(METRIC, compute=spoils_its_arguments), "values"),
    "ignores weights": (replace(METRIC, compute=ignores_weights), "weights"),
    "depends on the order": (replace(METRIC, compute=by_the_first), "order"),
    "wrong direction": (replace(METRIC, higher_is_better=False), "direction"),
    "infinite without a class": (replace(METRIC, compute=divides_by_a_class), "one_class"),
}
GOOD = {"metric": METRIC, "metric of a set": replace(method_plugins.wrong, meaning="How many are wrong.")}
