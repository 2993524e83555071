"""Weights from files onto a model: everything is read and checked first, assigned last.

    load_weights(model, path)                  a file that a user names
    load_huggingface(scaled, features, repo)   a file on the Hugging Face Hub, inside a plugin's build
    build_named(build, scaled, weights)        a plugin's build with the weights that it offers by name

The formats are ``.weights.h5`` and ``.keras`` (Keras 3), ``.h5`` (Keras 2, and what keras.applications
publishes), ``.safetensors``, and ``.pt`` and ``.pth`` (PyTorch).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError

from chestxray.errors import ChestXrayError, WeightsError, first_line
from chestxray.models.weight_files import Convert, opened
from chestxray.models.weight_matching import matched

if TYPE_CHECKING:
    import keras

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
        path: a .weights.h5, .keras, .h5, .safetensors, .pt or .pth file.
        backbone: names of the backbone's layers. None: all layers but ``logits``.
        convert: `ModelPlugin.convert`, for a safetensors file or PyTorch's under published names.

    Raises:
        WeightsError: the file is missing, broken, or of another architecture; the message names
            the first layer that does not fit. The model is then as it was.
    """
    layers = [layer for layer in model.layers if layer.weights]
    names = {layer.name for layer in layers}
    wanted = names - set(HEAD) if backbone is None else names & set(backbone)
    shapes = {variable.path: tuple(variable.shape) for layer in layers for variable in layer.weights}
    with opened(path, convert, wanted, shapes) as stored:
        values = matched(layers, wanted, stored, path)
    for variable, value in values:
        variable.assign(value)
    for layer in layers:  # layers that keep constants derived from their variables
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


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
    model = keras.Model(keras.utils.get_source_inputs(features), features)
    load_weights(model, Path(path), backbone=_between(scaled, features), convert=blamed(convert))


def build_named(build: Callable[[Any, str | None], Any], scaled: Any, weights: str | None) -> Any:
    """Return ``build(scaled, weights)``, the features, whatever stands before `scaled`.

    keras.applications refuses its own weights where other layers with weights come first (a
    normalisation adapted to the data): they are then taken from a second, separate backbone.

    Raises:
        WeightsError: the weights cannot be fetched.
    """
    import keras

    before = keras.Model(keras.utils.get_source_inputs(scaled), scaled)
    with named_weights(weights):
        if weights is None or not before.weights:
            return build(scaled, weights)
        entry = keras.Input(scaled.shape[1:], dtype=scaled.dtype)
        donor = keras.Model(entry, build(entry, weights))
    features = build(scaled, None)
    names = _between(scaled, features)
    layers = keras.Model(keras.utils.get_source_inputs(features), features).layers
    receivers = [layer for layer in layers if layer.weights and layer.name in names]
    givers = [layer for layer in donor.layers if layer.weights]
    for receiver, giver in zip(receivers, givers, strict=True):
        receiver.set_weights(giver.get_weights())
    return features


def _between(scaled: Any, features: Any) -> set[str]:
    """Names of the layers that lead from `scaled` to `features`."""
    import keras

    inputs = keras.utils.get_source_inputs(features)
    before = {layer.name for layer in keras.Model(inputs, scaled).layers}
    return {layer.name for layer in keras.Model(inputs, features).layers} - before


def blamed(convert: Convert | None) -> Convert | None:
    """`convert` of a plugin, whose exceptions name it: otherwise they would look like a defect of the file.

    The function that is returned raises `WeightsError` in place of any exception but a `ChestXrayError`.
    """
    if convert is None:
        return None

    def converted(*given: Any) -> Any:
        try:
            return convert(*given)
        except ChestXrayError:
            raise
        except Exception as error:
            raise WeightsError(
                f"convert of the plugin cannot read these weights: {type(error).__name__}: {first_line(error)}. "
                "The file is of another network, or convert has a defect."
            ) from error

    return converted


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
            if isinstance(error.__context__, HTTPError):
                error.__context__.close()  # the connection, whose answer nobody reads
            raise WeightsError(_unreachable(url[1], url[2], keep=keras_cache(url[1]))) from error
        known = isinstance(error, ConnectionError | TimeoutError | URLError)
        if known or str(error).startswith("Incomplete or corrupted file detected"):
            raise WeightsError(_unreachable(str(weights), error, keep=keras_cache(""))) from error
        raise


def _unreachable(what: str, reason: object, keep: str = "") -> str:
    """One line: what could not be fetched, where it is looked for, and what else to do."""
    place = f"put it at {keep}, " if keep else ""
    return (
        f"Cannot fetch the weights {what} ({' '.join(str(reason).split())}). "
        f"Where there is no network, {place}pass a file with --weights PATH, or start from random "
        "weights with --weights none."
    )


def keras_cache(url: str) -> str:
    """Return the path at which Keras keeps the file of weights from `url`."""
    home = os.environ.get("KERAS_HOME") or str(Path("~") / ".keras")
    return str(Path(home) / "models" / url.rpartition("/")[2])
