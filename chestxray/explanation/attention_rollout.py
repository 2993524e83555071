"""Attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928) of transformers whose graph has
``keras.ops.dot_product_attention``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from chestxray.errors import InputError
from chestxray.explanation.gradcam import check_layer
from chestxray.explanation.perturbation_maps import Maps, compiled

Tensor = Any


def attention_rollout(model: keras.Model, layer: str) -> Maps:
    """Return maps, float32 (rows, grid rows, grid columns), of how much of the attention that the answer is read from
    leads back to each patch; all maps of an image are alike, whatever its class.

    Each block's attention, the mean over its heads, is averaged with the identity for the residual connection, and the
    blocks are multiplied. `layer` gives the patches' grid (batch, rows, columns, width). Where it lies behind the last
    attention the network reads the mean of the patches, otherwise the first token, which stands before them.

    Raises:
        InputError: the network has no such attention, or one with a mask, a bias or a scale of its own; `layer` is no
            grid of the tokens.
    """
    check_layer(model, layer)
    attentions = [one for one in model.operations if type(one).__name__ == "DotProductAttention"]
    if not attentions:
        raise InputError("attention-rollout is for transformers: this architecture has no attention between patches.")
    pairs = [_query_and_key(one) for one in attentions]
    tokens = pairs[0][0].shape[1]
    grid = tuple(model.get_layer(layer).output.shape[1:3])
    others = tokens - grid[0] * grid[1]
    if others < 0 or any(query.shape[1] != tokens or key.shape[1] != tokens for query, key in pairs):
        raise InputError(
            f"attention-rollout needs a layer that is the grid of all {tokens} tokens but a few. "
            f"Received: {layer!r}, {grid[0]} x {grid[1]}."
        )
    order = list(model.operations)
    read_patches = order.index(model.get_layer(layer)) > order.index(attentions[-1])
    if not read_patches and not others:
        raise InputError(f"attention-rollout needs a class token before the patches of {layer!r}: there is none.")
    probe = keras.Model(model.inputs[0], pairs)

    def rolled(images: Tensor) -> Tensor:
        weights = [attention(query, key) for query, key in probe(images, training=False)]
        rollout = multiplied(weights)
        read = rollout[:, others:] if read_patches else rollout[:, :1]
        return ops.reshape(ops.mean(read[..., others:], axis=1), (-1, *grid))

    roll = compiled(rolled, ((None, *model.inputs[0].shape[1:]), "float32"))
    return lambda images, classes: np.asarray(roll(ops.convert_to_tensor(images)))


def attention(query: Tensor, key: Tensor) -> Tensor:
    """Return the attention (batch, tokens, tokens), the mean over heads of softmax(query key^T / sqrt(channels)), of
    `query` and `key`, both (batch, tokens, heads, channels); each row adds up to 1.
    """
    query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
    scores = ops.einsum("bthc,bshc->bhts", query, key) / query.shape[-1] ** 0.5
    return ops.mean(ops.softmax(scores, axis=-1), axis=1)


def multiplied(weights: Sequence[Tensor]) -> Tensor:
    """Return the rollout (batch, tokens, tokens) of the blocks' `weights`, the first block first."""
    found = None
    for one in weights:
        mixed = (one + ops.eye(one.shape[-1])) / 2
        found = mixed if found is None else ops.matmul(mixed, found)
    return found


def _query_and_key(operation: Any) -> tuple[Tensor, Tensor]:
    node = operation._inbound_nodes[-1]
    query, key, _, *others = node.arguments.args
    named = {name: value for name, value in node.arguments.kwargs.items() if value is not None}
    plain = not any(one is not None for one in others) and not named and not operation.is_causal
    if not plain or operation.attn_logits_soft_cap is not None:
        raise InputError(
            f"attention-rollout takes attention without mask, bias or scale of its own. Received: {operation.name!r}."
        )
    return query, key
