"""Hardware limits: rates of matrix products and of memory copies, and the arithmetic operations per
image of each architecture.

    python -m benchmarks.limits [MODEL ...]

Multiplications and additions of convolutions and dense layers are counted from the graph. Other layers
(normalisation, activations, pooling) are limited by memory bandwidth and come in addition.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from benchmarks.timing import fastest


def matrix_products(size: int = 2048, times: int = 20) -> float:
    """Return float32 operations per second (2 n^3 per product), the best of several products."""
    a = np.random.default_rng(0).random((size, size), dtype=np.float32)
    return 2 * size**3 / fastest(lambda: a @ a, times)


def copies(megabytes: int = 256, times: int = 20) -> float:
    """Return bytes per second of copying an array larger than the caches (read and written bytes count once)."""
    source = np.zeros(megabytes * 2**20, dtype=np.uint8)
    target = np.empty_like(source)
    return source.nbytes / fastest(lambda: np.copyto(target, source), times)


def operations(model) -> float:
    """Return the float operations per image of the convolutions and dense layers of a Keras `model`."""
    import keras

    total = 0.0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)):
            places = math.prod(layer.output.shape[1:-1])
            total += 2 * places * float(np.prod(layer.kernel.shape))
    return total


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="MODEL")
    names = parser.parse_args().names
    products, copied = matrix_products(), copies()
    print(f"matrix products {products / 1e9:.0f} GFLOP/s, copies {copied / 1e9:.1f} GB/s")
    from chestxray import registry
    from chestxray.models import assembly

    known = [entry.name for entry in registry.entries(registry.MODELS)]
    for name in names or known:
        import keras

        keras.backend.clear_session()
        plugin = registry.load_plugin(registry.MODELS, name)
        count = operations(assembly.build(plugin, 2, plugin.image_size, name=name).model)
        height, width = plugin.image_size
        print(f"{name} at {height}x{width}: {count / 1e9:.2f} GFLOP an image, at most {products / count:.0f} images/s")


if __name__ == "__main__":
    main()
