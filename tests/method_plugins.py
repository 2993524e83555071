"""Metrics and other methods of plugins, and how a test installs them as a distribution."""

import numpy as np
from keras import ops
from scipy import ndimage

from chestxray.plugin import AugmentationPlugin, ExplanationPlugin, LossPlugin, MetricPlugin, SegmenterPlugin


def mean_rank(truth, probability, weights):
    """The AUROC, by the definition: the share of pairs of a row with the class and one without that are in order."""
    with_it, without = probability[truth][:, None], probability[~truth]
    above = (with_it > without) + 0.5 * (with_it == without)
    own, rest = weights[:, truth], weights[:, ~truth]
    pairs = own.sum(axis=1) * rest.sum(axis=1)
    hits = np.einsum("ri,ij,rj->r", own, above.astype(float), rest)
    return np.divide(hits, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def percent_wrong(truth, probability, weights):
    return 100 * (weights @ (probability.argmax(axis=1) != truth)) / weights.sum(axis=1)


pairs = MetricPlugin(
    compute=mean_rank,
    title="Pairs in order",
    meaning="The share of pairs of a film with the class and one without that are in order.",
    reference="Mann and Whitney 1947",
    licence="Apache-2.0",
)
wrong = MetricPlugin(
    compute=percent_wrong,
    title="Percentage wrong",
    higher_is_better=False,
    bounds=(0.0, 100.0),
    per="set",
    reference="none: made for a test",
    licence="Apache-2.0",
)


def crossentropy(labels, probabilities):
    return -ops.sum(labels * ops.log(ops.clip(probabilities, 1e-7, 1)), axis=-1)


def crossentropy_of_each(labels, probabilities):
    p = ops.clip(probabilities, 1e-7, 1 - 1e-7)
    return -labels * ops.log(p) - (1 - labels) * ops.log(1 - p)


def brighten(images, draws, noise):
    return images + 10 * draws[:, :1, None, None]


def add_grain(images, draws, noise):
    return ops.clip(images + 20 * draws[:, :1, None, None] * noise, 0, 255)


_ORIGIN = {"reference": "none: made for a test", "licence": "Apache-2.0"}
plain = LossPlugin(compute=crossentropy, **_ORIGIN)
each = LossPlugin(compute=crossentropy_of_each, task="findings", **_ORIGIN)
brighter = AugmentationPlugin(augment=brighten, draws=1, **_ORIGIN)
grain = AugmentationPlugin(augment=add_grain, draws=1, noise=True, **_ORIGIN)


def brightness_of_parts(model, layer, images, classes):
    """The brightness of each quarter where the class is the first, its darkness where it is another."""
    quarters = images.reshape(len(images), 2, images.shape[1] // 2, 2, images.shape[2] // 2).mean(axis=(2, 4)) / 255
    return np.where((classes == 0)[:, None, None], quarters, 1 - quarters)


def raises(model, layer, images, classes):
    raise ValueError("no map\nof this film")


def leaves(model, layer, images, classes):
    raise SystemExit(3)


bright = ExplanationPlugin(explain=brightness_of_parts, **_ORIGIN)
raising, leaving = (ExplanationPlugin(explain=one, **_ORIGIN) for one in (raises, leaves))


def dark_within_the_body(pixels):
    """The two largest dark parts that do not reach the edge, where they are alike in size."""
    found = np.zeros(pixels.shape, bool)
    for number, film in enumerate(pixels):
        smoothed = ndimage.gaussian_filter(film.astype(float), film.shape[1] / 50)
        # Between the black of the air and the grey of the middle, which is spine and heart.
        middle = np.median(smoothed[:, 3 * film.shape[1] // 7 : 4 * film.shape[1] // 7])
        body = ndimage.binary_fill_holes(smoothed > middle / 2)
        parts, count = ndimage.label(
            (smoothed < 0.85 * middle) & ndimage.binary_erosion(body, iterations=film.shape[1] // 12)
        )
        edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[np.append(edge, 0)] = 0
        second, first = np.sort(np.append(sizes, 0))[-2:]
        if second > film.size / 50 and second > first / 3:
            found[number] = ndimage.binary_fill_holes(np.isin(parts, np.argsort(-sizes)[:2]))
    return found


dark = SegmenterPlugin(masks=dark_within_the_body, **_ORIGIN)


def bright_part(pixels):
    """What is brighter than the half, where that is more than a tenth of the film."""
    found = pixels > 127
    return found & (found.mean(axis=(1, 2)) > 0.1)[:, None, None]


lit = SegmenterPlugin(masks=bright_part, **_ORIGIN)
halved = SegmenterPlugin(masks=lambda pixels: pixels[:, ::2] > 0, **_ORIGIN)


def install(folder, monkeypatch, **groups):
    """Install the plugins ``pairs`` and ``wrong``, or those of ``metrics="a b"`` and the like, for a test's length."""
    groups = groups or {"metrics": "pairs wrong"}
    info = folder / "method_plugins-2.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: method-plugins\nVersion: 2.1\n")
    lines = [
        line
        for group, names in groups.items()
        for line in (f"[chestxray.{group}]", *(f"{name} = method_plugins:{name}" for name in names.split()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder)
