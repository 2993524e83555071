"""Heat maps by tf-keras-vis 0.8: saliency, and the maps that our faster ways must equal.

The only module that imports tf_keras_vis.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import keras
import numpy as np

from chestxray.explanation.gradcam import check_layer
from chestxray.models.assembly import logits_model

#: Methods of a layer that tf-keras-vis has.
LayerMethod = Literal["gradcam", "gradcam++", "layercam", "scorecam"]


def gradcam(
    model: keras.Model,
    layer: str,
    images: np.ndarray,
    classes: np.ndarray,
    batch_size: int = 16,
    *,
    finished: bool = True,
) -> np.ndarray:
    """Return heat maps of the logit of one class an image, computed by tf-keras-vis.

    `images`: float32 (rows, height, width, channels) in 0..255; `classes`: int (rows,). Returns
    float32 (rows, height, width) in 0..1, each map scaled from its own minimum to its own maximum; a
    map without positive evidence is all zero. Without `finished`, maps have the layer's own size and scale.

    Raises:
        PluginError: the model has no layer of that name, or it is not rank 4.
    """
    check_layer(model, layer)
    engine, score = engine_of(logits_model(model))
    return _in_batches(engine, score, layer, images, classes, batch_size, finished=finished)


def engine_of(model: keras.Model) -> tuple[Any, Any]:
    """Return tf-keras-vis's Grad-CAM of `model`, whose output are logits, and its ``CategoricalScore``."""
    with _quiet():
        from tf_keras_vis.gradcam import Gradcam
        from tf_keras_vis.utils.scores import CategoricalScore
    # The model already ends at the logits, so that there is nothing to modify, hence no copy.
    return Gradcam(model, clone=False), CategoricalScore


def layer_maps(
    method: LayerMethod, logits: keras.Model, layer: str, images: np.ndarray, classes: np.ndarray, batch_size: int = 32
) -> np.ndarray:
    """Return raw maps, float32 (rows, map height, map width), at the layer's own size and in the method's own unit.

    `logits` is a model that ends at logits; `images`: float32 (rows, height, width, channels) in 0..255; `classes`:
    int (rows,).
    """
    with _quiet():
        from tf_keras_vis.gradcam import Gradcam
        from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
        from tf_keras_vis.layercam import Layercam
        from tf_keras_vis.scorecam import Scorecam
        from tf_keras_vis.utils.scores import CategoricalScore
    kind = {"gradcam": Gradcam, "gradcam++": GradcamPlusPlus, "layercam": Layercam, "scorecam": Scorecam}[method]
    return _in_batches(kind(logits, clone=False), CategoricalScore, layer, images, classes, batch_size, finished=False)


def _in_batches(
    engine: Any, score: Any, layer: str, images: np.ndarray, classes: np.ndarray, batch_size: int, *, finished: bool
) -> np.ndarray:
    """Return the maps by `engine`, of tf-keras-vis; without `finished` at the layer's own size and scale."""
    maps = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        heat = engine(
            score([int(c) for c in classes[part]]),
            images[part],
            penultimate_layer=layer,
            seek_penultimate_conv_layer=False,
            expand_cam=finished,
            normalize_cam=finished,
        )
        maps.append(np.asarray(heat, dtype=np.float32))
    return np.concatenate(maps)


def saliency_engine(logits: keras.Model) -> Callable[[Any, Any], Any]:
    """Return tf-keras-vis's ``Saliency`` of `logits`, a model that ends at logits, as a function of images, float32
    (batch, height, width, channels), and classes, int32 (batch,).

    The function gives the absolute gradient of each image's logit with respect to its pixels, as the images' shape.
    The library calls the network eagerly; it is given one that is compiled.
    """
    import tensorflow as tf

    with _quiet():
        from tf_keras_vis.saliency import Saliency
    engine = Saliency(_Compiled(logits), clone=False)

    def maps(images: Any, classes: Any) -> Any:
        def score(outputs: Any) -> Any:
            return tf.gather(outputs, classes, batch_dims=1)

        return engine(score, images, keepdims=True, normalize_map=False)

    return maps


class _Compiled:
    """What tf-keras-vis uses of a model, its call compiled once for any number of images."""

    def __init__(self, model: keras.Model) -> None:
        import tensorflow as tf

        self.inputs, self.outputs = model.inputs, model.outputs
        images = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)
        traced = tf.function(lambda given: model([given], training=False), autograph=False)
        self._call = traced.get_concrete_function(images)

    def __call__(self, images: list[Any], training: bool = False) -> Any:
        return self._call(images[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Let tf-keras-vis be imported without a warning: it imports scipy.ndimage.interpolation, which SciPy calls
    deprecated.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"tf_keras_vis|scipy")
        warnings.filterwarnings("ignore", message=".*scipy.ndimage.*", category=DeprecationWarning)
        yield
