import numpy as np
import pytest

from chestxray.errors import PluginError
from chestxray.explanation.library_maps import gradcam
from chestxray.explanation.overlay import overlay
from chestxray.models.assembly import build

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 1)).astype(np.float32)


def test_maps_have_the_images_size_and_range(tiny):
    model = build(tiny, 3, (16, 16)).model
    maps = gradcam(model, "last", PIXELS, np.array([0, 1, 2, 0, 1]), batch_size=2)
    assert maps.shape == (5, 16, 16)
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_the_map_is_that_of_the_class_asked_for(tiny):
    model = build(tiny, 2, (16, 16)).model
    model.get_layer("logits").set_weights([np.eye(6, 2, dtype=np.float32), np.zeros(2, np.float32)])
    zero, one = (gradcam(model, "last", PIXELS[:1], np.array([c])) for c in (0, 1))
    assert (zero != one).any()


def test_a_layer_that_is_no_map_is_refused(tiny):
    model = build(tiny, 2, (16, 16)).model
    for layer in ("logits", "absent"):
        with pytest.raises(PluginError, match="rank-4"):
            gradcam(model, layer, PIXELS, np.zeros(5, int))


def test_cold_places_keep_the_radiograph():
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    laid = overlay(grey, heat)
    assert (laid[1:] == grey[1:, :, None]).all()
    assert laid[0, 0].tolist() == [120, 124, 16]
