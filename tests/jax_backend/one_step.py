"""Prints, as JSON lines, the losses of two training steps of each architecture, under the backend of KERAS_BACKEND.

The initial weights, the batch and the size are the same under all backends; they are drawn by NumPy, since Keras draws
from another stream under each.
"""

import json
import sys
import time

import keras
import numpy as np

from chestxray import registry
from chestxray.models import assembly

#: Smallest images, and images in a batch.
SIDE, BATCH, CLASSES = 32, 4, 3


def side_of(plugin) -> int:
    if plugin.fixed_size:
        return plugin.image_size[0]
    return -(-max(SIDE, *plugin.minimum_size) // plugin.size_multiple) * plugin.size_multiple


def drawn(model: keras.Model) -> None:
    """Give kernels weights drawn by He's rule, and leave constants as Keras initialises them.

    Those of the logits are small: of probabilities near 0 TensorFlow's loss takes the logits, and JAX's a limit.
    """
    for number, variable in enumerate(model.trainable_variables):
        if len(variable.shape) > 1:
            shape = tuple(variable.shape)
            last = 2 if "depthwise" in variable.path else 1
            scale = np.sqrt(2 / np.prod(shape[: len(shape) - last])) * (0.01 if "logits" in variable.path else 1)
            variable.assign(np.random.default_rng(number).normal(0, scale, shape).astype(np.float32))


def losses(name: str) -> dict:
    plugin = registry.load_plugin(registry.MODELS, name)
    side = side_of(plugin)
    model = assembly.build(plugin, CLASSES, (side, side)).model
    drawn(model)
    for layer in model._flatten_layers():
        if hasattr(layer, "rate") and isinstance(layer.rate, float):
            layer.rate = 0.0  # what dropout drops is drawn from another stream under each backend
    on_jax = keras.config.backend() == "jax"
    # A step of one length along the gradients, however large the numbers are that a network without training has.
    step = keras.optimizers.SGD(1.0, global_clipnorm=1e-4)
    model.compile(step, "categorical_crossentropy", run_eagerly=not on_jax, jit_compile=on_jax)
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 255, (BATCH, side, side, 1)).astype(np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[np.arange(BATCH) % CLASSES]
    start = time.perf_counter()
    found = [float(model.train_on_batch(images, labels)) for _ in range(2)]
    return {"name": name, "side": side, "losses": found, "seconds": round(time.perf_counter() - start, 1)}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(losses(name)), flush=True)
        keras.utils.clear_session()
