"""The checks of an `ExplanationPlugin`, on a small convolutional model."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np

from chestxray.explanation.published_explanations import fault
from chestxray.testing.method_checks import Method, check_fields, check_import, check_metadata, check_name
from chestxray.testing.results import Check, CheckFailed

ROWS, SIDE, CLASSES, LAYER = 3, 16, 2, "features"


def check_values(method: Method) -> None:
    """`explain` returns one finite map in 0..1 an image, of one class or another, for any number of images."""
    for rows in (1, ROWS):
        for number in range(CLASSES):
            images = _images()[:rows]
            if wrong := fault(_maps(method, images, number), images.shape):
                raise CheckFailed(f"explain {wrong}")


def check_layer(method: Method) -> None:
    """It draws maps, or says in one line why not, of a model without a convolutional layer."""
    from chestxray.errors import ChestXrayError

    inputs = keras.Input((SIDE, SIDE, 1))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(inputs)))
    try:
        found = np.asarray(method.function(model, None, _images(), np.zeros(ROWS, np.int32)))
    except ChestXrayError:
        return
    if wrong := fault(found, _images().shape):
        raise CheckFailed(f"explain without a layer {wrong}")


def check_repeats(method: Method) -> None:
    """The same images give the same maps."""
    if not np.allclose(_maps(method, _images(), 0), _maps(method, _images(), 0), atol=1e-5):
        raise CheckFailed("a second call gives other maps", "seed what is drawn")


def check_images(method: Method) -> None:
    """The map depends on the image, and not on the others of the batch."""
    images = _images()
    together = _maps(method, images, 0)
    if np.allclose(together[0], together[1], atol=1e-4):
        raise CheckFailed("two different images have the same map")
    if not np.allclose(together[0], _maps(method, images[:1], 0)[0], atol=1e-4):
        raise CheckFailed("the map of an image depends on the others of the batch", "scale each map by itself")


def check_classes(method: Method) -> None:
    """The map depends on the class that is explained."""
    if np.allclose(_maps(method, _images(), 0), _maps(method, _images(), 1), atol=1e-4):
        raise CheckFailed("both classes have the same map", "explain model(images)[:, class]")


def check_unchanged(method: Method) -> None:
    """The model is as it was before."""
    model = _model()
    before = [value.copy() for value in model.get_weights()]
    trained = [layer.trainable for layer in model.layers]
    _maps(method, _images(), 0)
    same = all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    if not same or trained != [layer.trainable for layer in model.layers]:
        raise CheckFailed("explain changes the model", "work on a copy, keras.models.clone_model")


EXPLANATION_CHECKS = (
    Check(check_fields),
    Check(check_metadata),
    Check(check_name),
    Check(check_values, needs=("fields",)),
    Check(check_layer, needs=("values",)),
    Check(check_unchanged, needs=("values",)),
    Check(check_repeats, needs=("unchanged",)),
    Check(check_images, needs=("repeats",)),
    Check(check_classes, needs=("repeats",)),
    Check(check_import),
)


@cache
def _model() -> keras.Model:
    """A model whose first class looks for what is bright on the left, and whose second for what is dark."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(6, 3, 2, "same", activation="relu", name=LAYER)(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x)))


def _images() -> np.ndarray:
    coarse = np.random.default_rng(0).uniform(0, 255, (ROWS, 4, 4))
    return np.kron(coarse, np.ones((1, 4, 4)))[..., None].astype(np.float32)


def _maps(method: Method, images: np.ndarray, number: int) -> np.ndarray:
    return np.asarray(method.function(_model(), LAYER, images, np.full(len(images), number, np.int32)))
