"""Weights from files onto a model: everything is read and checked first, assigned last.

    load_weights(model, path)                  a file that a user names
    load_huggingface(scaled, features, repo)   a file on the Hugging Face Hub, inside a plugin's build
    named_weights(weights)                     around a plugin's build: explains a failed download

The formats are ``.weights.h5`` and ``.keras`` (Keras 3), ``.h5`` (Keras 2, and what keras.applications
publishes) and ``.safetensors``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import numpy as np

from chestxray.errors import WeightsError
from chestxray.weight_files import Convert, StoredArray, StoredLayer, opened

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

#: Layers that are no part of a backbone unless it is said what is.
HEAD = ("logits",)


def load_weights(
    model: keras.Model,
    path: Path,
    *,
    backbone: Collection[str] | None = None,
    convert: Convert | None = None,
) -> None:
    """Load the file at `path` into `model`, a flat functional model.

    Every variable of the backbone must be in the file and fit. What comes after it, the head, is
    loaded where the file has all of it and it fits; from a file with another number of classes
    comes the backbone alone, and the log says so. What comes before it is left alone. Layers are
    matched by name where the file has every name, otherwise by class and order.

    Args:
        model: the model whose variables are set.
        path: a .weights.h5, .keras, .h5 or .safetensors file.
        backbone: names of the backbone's layers. None: all layers but ``logits``.
        convert: `ModelPlugin.convert`, for a safetensors file under published names.

    Raises:
        WeightsError: the file is missing, broken, or of another architecture; the message names
            the first layer that does not fit. The model is then as it was.
    """
    layers = [layer for layer in model.layers if layer.weights]
    names = {layer.name for layer in layers} - set(HEAD) if backbone is None else set(backbone)
    inside = [layer for layer in layers if layer.name in names]
    last = max((place for place, layer in enumerate(layers) if layer.name in names), default=-1)
    head = layers[last + 1 :]
    before = {layer.name for layer in layers[: last + 1]} - names
    with opened(path, convert, [layer.name for layer in inside]) as stored:
        pairs = _paired(inside, head, [layer for layer in stored if layer.name not in before])
        for layer in inside:
            _require_fit(layer, pairs.get(layer.name), path)
        _refuse_leftovers(stored, {id(layer) for layer in pairs.values()}, path)
        values = _values([*inside, *_fitting_head(head, pairs, path)], pairs, path)
    for variable, value in values:
        variable.assign(value)
    for layer in layers:  # layers that keep constants derived from their variables
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _paired(
    inside: list[keras.Layer], head: list[keras.Layer], stored: list[StoredLayer]
) -> dict[str, StoredLayer]:
    """The stored layer that belongs to each layer, by the layer's name.

    Names decide only where the file knows every one of the backbone: Keras numbers the layers that
    nobody named, and goes on counting from one model to the next.
    """
    by_name = {layer.name: layer for layer in stored if layer.name}
    wanted = {layer.name for layer in inside}
    if wanted <= set(by_name) or any(layer.kind is None for layer in stored):
        return {layer.name: by_name[layer.name] for layer in [*inside, *head] if layer.name in by_name}
    queues: dict[str | None, list[StoredLayer]] = {}
    for layer in stored:
        queues.setdefault(layer.kind, []).append(layer)
    pairs = {}
    for layer in [*inside, *head]:
        queue = queues.get(_snake_case(type(layer).__name__)) or queues.get("")
        if queue:
            pairs[layer.name] = queue.pop(0)
    return pairs


def _snake_case(name: str) -> str:
    """The class name as Keras writes it into a file: ``DepthwiseConv2D`` is ``depthwise_conv2d``."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _arrays(layer: keras.Layer, stored: StoredLayer | None) -> list[tuple[Any, StoredArray | None]]:
    """Each variable of `layer` with the array that the file has for it."""
    found: dict[int, StoredArray] = {}
    for key, array in stored.arrays.items() if stored else ():
        variable = _variable(layer, key)
        if variable is not None:
            found[id(variable)] = array
    return [(variable, found.get(id(variable))) for variable in layer.weights]


def _variable(layer: keras.Layer, key: str) -> Any | None:
    """The variable of `layer` that a file calls `key`: ``0``, ``query_dense/vars/0`` or ``kernel``."""
    if key.isdigit():
        return dict(enumerate(layer.weights)).get(int(key))
    *parents, place = key.split("/")
    if parents[-1:] != ["vars"] or not place.isdigit():
        paths = {variable.path.removeprefix(f"{layer.name}/"): variable for variable in layer.weights}
        return paths.get(key)
    owner: Any = layer
    for name in parents[:-1]:
        attributes = getattr(owner, "__dict__", {})
        owner = attributes.get(name, attributes.get(f"_{name}"))
    return dict(enumerate(getattr(owner, "weights", []))).get(int(place))


def _misfit(layer: keras.Layer, stored: StoredLayer | None) -> str:
    """Why `stored` is not `layer`, or an empty string."""
    for variable, array in _arrays(layer, stored):
        if array is None or array.shape != tuple(variable.shape):
            received = f"shape {array.shape}" if array else "nothing" if stored else "no such layer"
            expected = f"{variable.name} of shape {tuple(variable.shape)}"
            return f"layer {layer.name} expects {expected}. Received: {received}."
    return ""


def _require_fit(layer: keras.Layer, stored: StoredLayer | None, path: Path) -> None:
    misfit = _misfit(layer, stored)
    if misfit:
        raise WeightsError(f"The weights in {path} do not fit this architecture: {misfit}")


def _refuse_leftovers(stored: list[StoredLayer], used: set[int], path: Path) -> None:
    """Refuse a file that holds convolutions which the model lacks.

    A file of a deeper network can fit layer by layer. What may be left over is a head: vectors and
    matrices, no filter that sees neighbours.
    """
    for layer in stored:
        sees_neighbours = any(
            len(array.shape) > 3 and np.prod(array.shape[:-2]) > 1 for array in layer.arrays.values()
        )
        if id(layer) not in used and sees_neighbours:
            shape = next(iter(layer.arrays.values())).shape
            raise WeightsError(
                f"The weights in {path} do not fit this architecture: the model has no place for "
                f"layer {layer.name or layer.kind} of the file. Received: shape {shape}."
            )


def _fitting_head(head: list[keras.Layer], pairs: dict[str, StoredLayer], path: Path) -> list[keras.Layer]:
    """The head's layers if the file has all of them and they fit, otherwise none of them."""
    if not any(layer.name in pairs for layer in head):
        return []
    for layer in head:
        misfit = _misfit(layer, pairs.get(layer.name))
        if misfit:
            logger.warning("Only the backbone is loaded from %s; the head starts anew: %s", path, misfit)
            return []
    return head


def _values(
    layers: list[keras.Layer], pairs: dict[str, StoredLayer], path: Path
) -> list[tuple[Any, np.ndarray]]:
    values = []
    for layer in layers:
        for variable, array in _arrays(layer, pairs[layer.name]):
            assert array is not None  # _misfit saw to it
            value = array.read()
            if not np.all(np.isfinite(value.astype("float32"))):
                raise WeightsError(
                    f"The weights in {path} are not finite: layer {layer.name}, {variable.name}."
                )
            values.append((variable, value))
    return values


def load_huggingface(
    scaled: Any,
    features: Any,
    repository: str,
    *,
    convert: Convert,
    filename: str = "model.safetensors",
    revision: str = "main",
) -> None:
    """Fetch a file from the Hugging Face Hub and load it into the layers from `scaled` to `features`.

    Called in a plugin's ``build``, once the graph stands. The file is kept in the Hub's own cache.

    Raises:
        WeightsError: the file cannot be fetched or does not fit.
    """
    import keras
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    try:
        # The Hub's client asks the server even for what it has, and retries for half a minute.
        path = try_to_load_from_cache(repository, filename, revision=revision)
        if not isinstance(path, str):
            path = hf_hub_download(repository, filename, revision=revision)
    except (HfHubHTTPError, OSError) as error:
        url = f"https://huggingface.co/{repository}/resolve/{revision}/{filename}"
        raise WeightsError(_unreachable(url, error)) from error
    inputs = keras.utils.get_source_inputs(features)
    before = {layer.name for layer in keras.Model(inputs, scaled).layers}
    model = keras.Model(inputs, features, name=repository.rpartition("/")[2])
    names = [layer.name for layer in model.layers if layer.name not in before]
    load_weights(model, Path(path), backbone=names, convert=convert)


@contextmanager
def named_weights(weights: str | None) -> Iterator[None]:
    """Wrap the call of a plugin's ``build``: a download that failed becomes a `WeightsError`.

    >>> with named_weights("imagenet"):  # doctest: +SKIP
    ...     features = plugin.build(scaled, "imagenet")
    """
    try:
        yield
    except Exception as error:
        # keras.utils.get_file raises a bare Exception, of which only the text tells what happened.
        url = re.match(r"URL fetch failure on (\S+): .*? -- (.*)", str(error), re.DOTALL)
        if url:
            raise WeightsError(_unreachable(url[1], url[2], keep=_keras_cache(url[1]))) from error
        known = isinstance(error, ConnectionError | TimeoutError | URLError)
        if known or str(error).startswith("Incomplete or corrupted file detected"):
            raise WeightsError(_unreachable(str(weights), error, keep=_keras_cache(""))) from error
        raise


def _unreachable(what: str, reason: object, keep: str = "") -> str:
    """One line: what could not be fetched, where it is looked for, and what else to do."""
    place = f"put it at {keep}, " if keep else ""
    return (
        f"Cannot fetch the weights {what} ({' '.join(str(reason).split())}). "
        f"Where there is no network, {place}pass a file with --weights PATH, or start from random "
        "weights with --weights none."
    )


def _keras_cache(url: str) -> str:
    home = os.environ.get("KERAS_HOME") or str(Path("~") / ".keras")
    return str(Path(home) / "models" / url.rpartition("/")[2])
