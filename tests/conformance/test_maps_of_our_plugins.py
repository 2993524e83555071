"""The heat maps of three of our architectures beside tf-keras-vis: read again from a file, and in half precision."""

import keras
import numpy as np
import pytest

from chestxray import registry
from chestxray.explanation.library_maps import layer_maps
from chestxray.explanation.methods import enlarged, raw_maps
from chestxray.models.assembly import build, logits_model, save

SIZE = (64, 64)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 1)).astype(np.uint8)
CLASSES = np.array([0, 2])


def made(name, mixed):
    """The architecture with random weights, its batch normalisation as if trained on the images: else signals vanish
    on their way through it.
    """
    model = build(registry.load_plugin(registry.MODELS, name), 3, SIZE, name=name, mixed_precision=mixed, seed=1).model
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    model(PIXELS.astype(np.float32), training=True)
    return model


# The library evaluates the network once for each channel of the layer for scorecam: for one network alone.
@pytest.mark.parametrize(
    ("name", "mixed", "methods"),
    [
        ("resnet18", False, ("gradcam", "gradcam++", "layercam", "scorecam")),
        ("mobilenetv3small", False, ("gradcam", "gradcam++", "layercam")),
        ("mobilenetv3small", True, ("gradcam", "gradcam++", "layercam")),
        ("densenet121", False, ("gradcam", "layercam")),
    ],
)
def test_maps_are_those_of_tf_keras_vis(name, mixed, methods, tmp_path):
    first, layer = made(name, mixed), registry.load_plugin(registry.MODELS, name).cam_layer
    save(first, tmp_path / "model.keras")
    model, logits = keras.models.load_model(tmp_path / "model.keras"), logits_model(first)
    for method in methods:
        maps = raw_maps(method, model, layer, PIXELS, CLASSES)
        library = enlarged(layer_maps(method, logits, layer, PIXELS.astype(np.float32), CLASSES), SIZE)
        if method == "gradcam++":
            # The library's gradients are of exp(logit), a factor of each map that ours leave out.
            scores = logits.predict(PIXELS.astype(np.float32), verbose=0)[np.arange(2), CLASSES]
            library /= np.exp(scores)[:, None, None]
        assert library.max() > 0, method
        np.testing.assert_allclose(maps, library, atol=(0.05 if mixed else 1e-3) * library.max(), err_msg=method)
    keras.backend.clear_session()
