"""All checks of heat maps that change the image or know where something is on it, by one call.

Their cost is a fixed count of images, never a time: `IMAGES` for those that change the image, `MASKED` for those that
compare a map with a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from chestxray.errors import InputError, NonFiniteError
from chestxray.evaluation.figure_format import in_sentence, with_interval
from chestxray.explanation.drawn_images import drawn
from chestxray.explanation.faithfulness.pixel_order import Predict
from chestxray.explanation.faithfulness.removal_checks import EVALUATIONS, removal_checks
from chestxray.explanation.faithfulness.stability import ROTATION, SHIFT, STEADY, Stability, stability
from chestxray.explanation.localisation.located import Located
from chestxray.explanation.localisation.overlap_checks import Tuning, lung_check, overlap_checks
from chestxray.explanation.map_check import Explain, MapCheck
from chestxray.explanation.map_estimates import FEWEST_PATIENTS
from chestxray.models.forward import BATCH, Forward

#: Most images that are changed, and most whose maps are compared with a mask.
IMAGES, MASKED = 24, 200
#: Evaluations of the network for an image that is changed: by four kinds of maps, and by the changes of stability.
EVALUATIONS_AN_IMAGE = 4 * EVALUATIONS + 4


def checks(
    model: Any,
    explain: Explain,
    pixels: np.ndarray,
    classes: np.ndarray,
    patients: np.ndarray,
    *,
    seed: int,
    lungs: np.ndarray | None = None,
    films: np.ndarray | None = None,
    found_at: Located | None = None,
    validation: Located | None = None,
    names: Sequence[str] | None = None,
    images: int = IMAGES,
    removal: bool = True,
) -> list[MapCheck]:
    """Return the checks ``deletion``, ``insertion``, ``road`` and ``stability``; with `lungs` also
    ``inside-lungs``; with `found_at` ``pointing-game`` and ``share-inside`` and, with `validation` too, ``iou``.

    Args:
        model: a Keras model of pixels in 0..255 that returns probabilities, (rows, classes).
        explain: the method.
        pixels: uint8 (rows, height, width, channels), of the test.
        classes: the explained class of each image, int (rows,).
        patients: codes of the patients, int (rows,).
        seed: chooses the images, and fixes random maps, changes, noise and the bootstrap.
        lungs: where the lungs are, bool (rows, height, width), all False where that is not known.
        films: where the film lies in each image, bool (rows, height, width); None: everywhere.
        found_at: images of the test, these or others, whose finding's place is known.
        validation: such images of validation, which choose the threshold of ``iou``.
        names: of the classes, for figures by finding.
        images: most images that are changed.
        removal: whether to make the first three, which cost the most.

    Raises:
        InputError: arrays of different lengths.
        NonFiniteError: a map or a probability holds NaN or infinity.
    """
    lengths = [len(one) for one in (pixels, classes, patients, lungs) if one is not None]
    if len(set(lengths)) != 1 or not len(pixels):
        raise InputError(
            "Checks of heat maps need as many classes, patients and masks as images, and one at least. Received: "
            f"{', '.join(map(str, lengths))}."
        )
    classes, patients = np.asarray(classes), np.unique(patients, return_inverse=True)[1]
    predict = probability_of(model)
    rows = drawn(patients, images, seed)
    maps = _maps(explain, model, pixels[rows], classes[rows])
    found = []
    if removal:
        some = None if films is None else films[rows]
        found = removal_checks(predict, pixels[rows], classes[rows], patients[rows], maps, films=some, seed=seed)
    kept = stability(model, explain, predict, pixels[rows], classes[rows], patients[rows], maps, seed=seed)
    found.append(_stability_check(kept))
    if found_at is not None:
        own = _maps(explain, model, found_at.pixels, found_at.classes)
        findings = None if names is None else [names[i] for i in found_at.classes]
        tuning = None
        if validation is not None:
            of_validation = _maps(explain, model, validation.pixels, validation.classes)
            tuning = Tuning(of_validation, validation.masks, validation.films)
        found += overlap_checks(
            own, found_at.masks, found_at.patients, findings=findings, tuning=tuning, films=found_at.films, seed=seed
        )
    if lungs is not None and (known := np.flatnonzero(lungs.any(axis=(1, 2)))).size:
        known = known[drawn(patients[known], MASKED, seed)]
        own = _maps(explain, model, pixels[known], classes[known])
        some = None if films is None else films[known]
        found += lung_check(own, lungs[known], patients[known], films=some, seed=seed)
    return found


def probability_of(model: Any, batch: int = BATCH) -> Predict:
    """Return the function that computes the probability of a class of each image by `model`, compiled once."""
    forward = Forward(model)

    def predict(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        parts = [forward(images[start : start + batch])[0] for start in range(0, len(images), batch)]
        probabilities = np.concatenate(parts)[np.arange(len(images)), classes].astype(np.float64)
        if not np.isfinite(probabilities).all():
            raise NonFiniteError("The heat maps cannot be checked: the network gives NaN or infinity for an image.")
        return probabilities

    return predict


def _maps(explain: Explain, model: Any, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    maps = np.asarray(explain(model, pixels, classes), np.float32)
    if not np.isfinite(maps).all():
        raise NonFiniteError("The heat maps cannot be checked: a map holds NaN or infinity.")
    return maps


def _stability_check(kept: Stability) -> MapCheck:
    are = "is" if kept.unsteady == 1 else "are"
    left = (
        f"; {kept.unsteady} whose probability changed by more than {STEADY:g} {are} left out" if kept.unsteady else ""
    )
    one, where = kept.even == 1, "whose map is the same everywhere"
    some = f"The image {where} is" if one else f"The {kept.even} images {where} are"
    even = f" {some} left out." if kept.even else ""
    patients = "1 patient is" if kept.patients == 1 else f"{kept.patients} patients are"
    few = f" {patients} too few to judge by." if kept.patients < FEWEST_PATIENTS else ""
    if kept.own.value is None:
        return MapCheck("stability", "doubtful", f"No changed image could be compared{left}.{even}", asdict(kept))
    lead = with_interval(kept.difference.to_json(), 2, level="95%", signed=True)
    sentence = (
        f"Shifts by {SHIFT:.0%} of the film, rotations by {ROTATION:g} degrees and faint noise leave the map alike by "
        f"a rank correlation of {in_sentence(kept.own.to_json())}; the maps of any two patients are alike by "
        f"{in_sentence(kept.pairs.to_json())}. The difference is {lead}, over {kept.compared} changed images{left}."
        f"{even}{few}"
    )
    return MapCheck("stability", kept.verdict, sentence, asdict(kept))
