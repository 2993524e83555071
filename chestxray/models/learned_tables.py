"""Class tokens, register tokens, position embeddings and relative biases as stock Keras layers of a flat graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Tensor = Any


def table(like: Tensor, shape: Sequence[int], *, name: str, initializer: Any = None) -> Tensor:
    """Return the trained array `shape`, repeated for each image of `like`: ``(batch, *shape)``.

    In a functional graph a bare variable, or an array that is added to a tensor, becomes a constant: it
    is neither trained nor counted nor loaded. Here the array is the kernel of a stock layer, which is
    multiplied by a one for each image. In files of weights it is ``name/kernel``, of shape
    ``(1, *shape)``. What `like` holds does not matter; take the tensor that the table
    meets, so that the graph can be cut before it.

    >>> tokens = table(patches, (1, 384), name="class_token")  # doctest: +SKIP
    >>> x = keras.layers.Concatenate(axis=1)([tokens, patches])  # doctest: +SKIP

    Args:
        like: a tensor (batch, ...) of the graph.
        shape: of the table; no dimension is open.
        name: of the layer.
        initializer: of the table. None: a normal distribution of deviation 0.02, cut at two deviations, as
            Dosovitskiy et al. (arXiv:2010.11929) and its successors have it.
    """
    import keras

    places = "hijklmnop"[: len(shape)]
    # Of shape (batch, 1): LiteRT cannot convert a product without a dimension to sum over.
    ones = keras.ops.ones_like(like[(slice(None), slice(1), *[0] * (len(like.shape) - 2))])
    if initializer is None:
        initializer = keras.initializers.TruncatedNormal(stddev=0.02)
    return keras.layers.EinsumDense(
        f"ba,a{places}->b{places}", output_shape=tuple(shape), kernel_initializer=initializer, name=name
    )(ones)
