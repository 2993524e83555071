"""All checks of one method that change the model or its labels, in one call."""

from __future__ import annotations

from typing import Any

import numpy as np

from chestxray.evaluation.intervals import Figure
from chestxray.explanation.map_check import Explain, MapCheck
from chestxray.explanation.sanity.discrimination import Untaught, discrimination
from chestxray.explanation.sanity.other_label import other_label, shuffled_labels
from chestxray.explanation.sanity.own_maps import OwnMaps
from chestxray.explanation.sanity.randomisation import randomisation

#: Images that the checks take by default.
IMAGES = 24


def model_checks(
    model: Any,
    explain: Explain,
    pixels: np.ndarray,
    classes: np.ndarray,
    *,
    auroc: Figure,
    shuffled: Any = None,
    beside: Untaught | None = None,
    patients: np.ndarray | None = None,
    images: int = IMAGES,
    seed: int = 0,
) -> list[MapCheck]:
    """Return the checks of the maps that `explain` gives for `model`, which is left as it is.

    Args:
        model: from pixels in 0..255 to probabilities; a functional Keras model.
        explain: the method of explanation.
        pixels: test images, uint8 (rows, height, width, channels); `images` of them are drawn.
        classes: the class or finding explained in each, such as the decided one, int (rows,).
        auroc: of the whole test, or its mean over classes or findings.
        shuffled: a model made alike, but trained on shuffled labels; None: that check is not made.
        beside: its test, see `discrimination`.
        patients: identifiers (rows,); None: each image is of a patient of its own.
        images: number of images that are explained, 20 times each in a network of 8 groups of layers or more.
        seed: of the images, the pairs, the random weights and the bootstrap.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(pixels))[:images])
    of = None if patients is None else np.asarray(patients)[rows]
    own = OwnMaps.of(model, explain, pixels[rows], np.asarray(classes)[rows], patients=of, seed=seed)
    checks = [discrimination(auroc, beside), *randomisation(model, explain, own), *other_label(model, explain, own)]
    return checks if shuffled is None else [*checks, *shuffled_labels(shuffled, explain, own)]
