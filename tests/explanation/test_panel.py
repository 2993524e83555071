import json

import numpy as np
import pandas as pd
import pytest

from chestxray.errors import PluginError
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation import panel
from chestxray.explanation.library_maps import gradcam
from chestxray.explanation.overlay import overlay
from chestxray.models.assembly import build
from chestxray.report.heatmap_wording import method_and_scale

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


def test_one_outlier_leaves_the_other_maps_to_be_seen(tiny, tmp_path, monkeypatch):
    """Of 30 films one has a map 100 times as high: it is drawn to the end of the scale, which the others share."""
    count, outlier = 30, 7
    paths = [f"{i:02d}.png" for i in range(count)]
    rows = pd.DataFrame({"path": paths, "label": "a", "patient": paths, "split": "test", "source": "s"})
    answered = np.linspace(0.6, 0.9, count)
    predictions = Predictions.from_probabilities(rows, ("a", "b"), np.stack([answered, 1 - answered], axis=1))
    images = {path: np.full((8, 8), i, np.uint8) for i, path in enumerate(paths)}

    def maps_of(method, model, layer, pixels, classes):
        highest = np.where(pixels[:, 0, 0, 0] == outlier, 500.0, 5.0)
        return np.broadcast_to(highest[:, None, None], pixels.shape[:3]).astype(np.float32)

    monkeypatch.setattr(panel, "maps_of", maps_of)
    panel.write_panel(None, "last", "", predictions, images, count, 0, tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    assert {key: index["scale"][key] for key in ("highest", "beyond")} == {"highest": 5.0, "beyond": 1}
    assert "the hottest colour is 5 and more, as 1 of 30 maps have (logit" in method_and_scale(index)
    index["scale"] |= {"beyond": 0}
    assert "the hottest colour is 5 (logit" in method_and_scale(index)


def test_a_panel_without_images_gives_the_reason_that_it_has(tiny, tmp_path):
    rows = pd.DataFrame({"path": ["a.png"], "label": "a", "patient": "a", "split": "test", "source": "s"})
    predictions = Predictions.from_probabilities(rows, ("a", "b"), np.array([[0.9, 0.1]]))
    model, reasons = build(tiny, 2, (16, 16)).model, []
    known = {"highest": 1.0, "beyond": 0, "unit": "logit", "images": 8}
    for images, each in (({}, 4), ({"a.png": np.zeros((16, 16), np.uint8)}, 0)):
        panel.write_panel(model, "last", "", predictions, images, each, 0, tmp_path, known=known)
        index = json.loads((tmp_path / "index.json").read_text())
        reasons.append(index["reason"])
        # Where none was asked for, none is shown anywhere, and there is no scale.
        assert index.get("gradcam") == (known if each else None)
    assert reasons == [
        "The images of the test are no longer decoded in the cache.",
        "The recipe asked for none (heatmaps = 0).",
    ]
