"""Metrics and other methods, each broken in one way, and the check that is meant for it."""

from dataclasses import replace

import numpy as np
from keras import ops, random

import method_plugins
from chestxray.plugin import MetricPlugin


def _figure(truth, probability, weights):
    return (weights @ np.where(truth, probability, 1 - probability)) / weights.sum(axis=1)


def ignores_weights(truth, probability, weights):
    return np.full(len(weights), _figure(truth, probability, np.ones((1, len(truth))))[0])


def takes_one_replicate(truth, probability, weights):
    return _figure(truth, probability, weights[:1])


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


def logarithm_of_zero(labels, probabilities):
    return -ops.sum(labels * ops.log(probabilities), axis=-1)


def mean_of_the_batch(labels, probabilities):
    return ops.mean(method_plugins.crossentropy(labels, probabilities))


def of_the_batch(labels, probabilities):
    losses = method_plugins.crossentropy(labels, probabilities)
    return losses * 0 + ops.mean(losses)


def of_other_findings(labels, probabilities):
    return method_plugins.crossentropy_of_each(labels, probabilities) * (1 + ops.sum(labels, axis=-1, keepdims=True))


def rewards_errors(labels, probabilities):
    return 20 - method_plugins.crossentropy(labels, probabilities)


def of_decisions(labels, probabilities):
    return ops.sum(labels * (1 - ops.round(probabilities)), axis=-1)


def in_numpy(labels, probabilities):
    return method_plugins.crossentropy(labels, probabilities) * (2 if np.asarray(labels).sum() > 0 else 1)


def root_of_the_error(labels, probabilities):
    return ops.sqrt(ops.sum((labels - probabilities) ** 2, axis=-1))


LOSS, FINDINGS = method_plugins.plain, method_plugins.each
BROKEN |= {
    "loss without a licence": (replace(LOSS, licence=""), "metadata"),
    "loss that is not finite": (replace(LOSS, compute=logarithm_of_zero), "values"),
    "one number a batch": (replace(LOSS, compute=mean_of_the_batch), "values"),
    "one number an image of findings": (replace(FINDINGS, compute=method_plugins.crossentropy), "values"),
    "loss of the whole batch": (replace(LOSS, compute=of_the_batch), "rows"),
    "loss of other findings": (replace(FINDINGS, compute=of_other_findings), "findings"),
    "loss of decisions": (replace(LOSS, compute=of_decisions), "gradients"),
    "infinite gradient": (replace(LOSS, compute=root_of_the_error), "gradients"),
    "lower for errors": (replace(LOSS, compute=rewards_errors), "direction"),
    "numpy in a loss": (replace(LOSS, compute=in_numpy), "training"),
}


def cropped(images, draws, noise):
    return method_plugins.add_grain(images, draws, noise)[:, 1:-1]


def unclipped(images, draws, noise):
    return images + 60 * draws[:, :1, None, None]


def of_its_own_generator(images, draws, noise):
    return ops.clip(images + 20 * random.uniform((1, 1, 1, 1)), 0, 255)


def unchanged(images, draws, noise):
    return images


def against_the_others(images, draws, noise):
    return ops.clip(images - draws[:, :1, None, None] * ops.mean(images), 0, 255)


def other_in_a_graph(images, draws, noise):
    # A tensor of a graph has no numbers, so that another branch is taken.
    return method_plugins.add_grain(images, draws if hasattr(images, "numpy") else 1 - draws, noise)


def mirrored(images, draws, noise):
    return ops.where(draws[:, :1, None, None] < 0.2, images[:, :, ::-1], images)


GRAIN = method_plugins.grain
BROKEN |= {
    "augmentation without a reference": (replace(GRAIN, reference=""), "metadata"),
    "another shape": (replace(GRAIN, augment=cropped), "values"),
    "beyond 255": (replace(GRAIN, augment=unclipped), "values"),
    "a generator of its own": (replace(GRAIN, augment=of_its_own_generator), "repeats"),
    "nothing is changed": (replace(GRAIN, augment=unchanged), "draws"),
    "images against the others": (replace(GRAIN, augment=against_the_others), "rows"),
    "another in a graph": (replace(GRAIN, augment=other_in_a_graph), "graph"),
    "mirrors unsaid": (replace(GRAIN, augment=mirrored), "mirror"),
}


def larger_than_the_image(model, layer, images, classes):
    return np.repeat(images[..., 0] / 255, 2, axis=1)


def to_a_hundred(model, layer, images, classes):
    return 100 * method_plugins.brightness_of_parts(model, layer, images, classes)


def divides_by_nothing(model, layer, images, classes):
    maps = method_plugins.brightness_of_parts(model, layer, images, classes)
    return np.where(classes[:, None, None] > 0, maps, np.nan)


def needs_a_layer(model, layer, images, classes):
    model.get_layer(layer)
    return method_plugins.brightness_of_parts(model, layer, images, classes)


def changes_the_model(model, layer, images, classes):
    model.layers[-1].trainable = not model.layers[-1].trainable
    return method_plugins.brightness_of_parts(model, layer, images, classes)


def of_any_number(model, layer, images, classes):
    return np.random.default_rng().random((len(images), 4, 4))


def scaled_together(model, layer, images, classes):
    maps = method_plugins.brightness_of_parts(model, layer, images, classes)
    return maps / maps.max() * (len(images) > 1) + maps * (len(images) == 1)


def of_no_class(model, layer, images, classes):
    return method_plugins.brightness_of_parts(model, layer, images, classes * 0)


def of_no_image(model, layer, images, classes):
    return np.broadcast_to((classes * 1.0)[:, None, None], (len(images), 4, 4))


EXPLANATION = method_plugins.bright
BROKEN |= {
    "explanation without a licence": (replace(EXPLANATION, licence=""), "metadata"),
    "map larger than the image": (replace(EXPLANATION, explain=larger_than_the_image), "values"),
    "map beyond 1": (replace(EXPLANATION, explain=to_a_hundred), "values"),
    "map that is not finite": (replace(EXPLANATION, explain=divides_by_nothing), "values"),
    "no map without a layer": (replace(EXPLANATION, explain=needs_a_layer), "layer"),
    "model changed": (replace(EXPLANATION, explain=changes_the_model), "unchanged"),
    "map of chance": (replace(EXPLANATION, explain=of_any_number), "repeats"),
    "map of no image": (replace(EXPLANATION, explain=of_no_image), "images"),
    "maps scaled together": (replace(EXPLANATION, explain=scaled_together), "images"),
    "map of no class": (replace(EXPLANATION, explain=of_no_class), "classes"),
}


def given_as_numbers(pixels):
    return method_plugins.dark_within_the_body(pixels).astype(float)


def lungs_or_a_guess(pixels):
    found = method_plugins.dark_within_the_body(pixels)
    found[~found.any(axis=(1, 2)), 1:-1, 1:-1] = True
    return found


def with_those_of_others(pixels):
    found = method_plugins.dark_within_the_body(pixels)
    return found | found.all(axis=0) if len(pixels) == 1 else found & found.any(axis=0)[:, ::-1]


SEGMENTER = method_plugins.dark
BROKEN |= {
    "segmenter without a reference": (replace(SEGMENTER, reference=""), "metadata"),
    "masks of numbers": (replace(SEGMENTER, masks=given_as_numbers), "values"),
    "masks of no lungs": (replace(SEGMENTER, masks=lambda pixels: np.zeros(pixels.shape, bool)), "lungs"),
    "lungs in everything": (replace(SEGMENTER, masks=lungs_or_a_guess), "unknown"),
    "masks of a batch": (replace(SEGMENTER, masks=with_those_of_others), "films"),
}
GOOD = {
    "segmenter": SEGMENTER,
    "explanation": EXPLANATION,
    "loss of classes": LOSS,
    "loss of findings": FINDINGS,
    "augmentation": GRAIN,
    "augmentation that mirrors": replace(GRAIN, augment=mirrored, mirrors=True),
    "metric": METRIC,
    "metric of a set": replace(method_plugins.wrong, meaning="How many are wrong."),
}
