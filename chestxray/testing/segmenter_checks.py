"""The checks of a `SegmenterPlugin`, on drawn phantoms, whose lungs are known, and on pictures without lungs."""

from __future__ import annotations

from functools import cache

import numpy as np

from chestxray.data.lung_masks import masks_of
from chestxray.data.sources.phantom.drawing import draw
from chestxray.errors import PluginError
from chestxray.testing.method_checks import Method, check_fields, check_import, check_metadata, check_name
from chestxray.testing.results import Check, CheckFailed

SIDE, FILMS = 96, 4
#: Least mean Dice coefficient of phantoms: what a film's mean lungs reach is 0.75 to 0.8.
LEAST = 0.8


def check_values(method: Method) -> None:
    """`masks` returns one bool mask a film, of any number of films of any size."""
    for films in (_drawn()[0][:1], _drawn()[0], _drawn()[0][:2, ::2, :-7]):
        _masks(method, films)


def check_lungs(method: Method) -> None:
    """It finds the lungs of drawn phantoms, with a mean Dice coefficient of 0.8 or more."""
    films, lungs = _drawn()
    found = _masks(method, films)
    both = (found & lungs).sum(axis=(1, 2))
    dice = float(np.mean(2 * both / (found.sum(axis=(1, 2)) + lungs.sum(axis=(1, 2)))))
    if dice < LEAST:
        raise CheckFailed(f"of {FILMS} phantoms the mean Dice coefficient is {dice:.2f}")


def check_unknown(method: Method) -> None:
    """The mask of a picture without lungs is empty."""
    rng = np.random.default_rng(0)
    pictures = {
        "a black picture": np.zeros((SIDE, SIDE)),
        "a grey picture": np.full((SIDE, SIDE), 128),
        "noise": rng.uniform(0, 255, (SIDE, SIDE)),
    }
    for name, picture in pictures.items():
        if _masks(method, picture[None].astype(np.uint8)).any():
            raise CheckFailed(f"it finds lungs in {name}", "return an empty mask where no lungs are plausible")


def check_films(method: Method) -> None:
    """The mask of a film does not depend on the others, and is the same again."""
    films, _ = _drawn()
    together, alone = _masks(method, films), _masks(method, films[:1])
    if (together[0] != alone[0]).mean() > 1e-3:
        raise CheckFailed("the mask of a film depends on the others, or on chance")


SEGMENTER_CHECKS = (
    Check(check_fields),
    Check(check_metadata),
    Check(check_name),
    Check(check_values, needs=("fields",)),
    Check(check_lungs, needs=("values",)),
    Check(check_unknown, needs=("values",)),
    Check(check_films, needs=("values",)),
    Check(check_import),
)


@cache
def _drawn() -> tuple[np.ndarray, np.ndarray]:
    drawn = [draw(seed=5, patient=n, image=0, finding="clear", size=SIDE) for n in range(FILMS)]
    high = min(len(each.pixels) for each in drawn)
    return np.stack([each.pixels[:high] for each in drawn]), np.stack([each.lungs[:high] for each in drawn])


def _masks(method: Method, films: np.ndarray) -> np.ndarray:
    try:
        return masks_of(method.function, films)
    except PluginError as error:
        raise CheckFailed(str(error)) from error
