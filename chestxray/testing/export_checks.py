"""Checks that a plugin's model can leave Keras."""

from __future__ import annotations

import importlib.util

import keras
import numpy as np

from chestxray.errors import ExportError, PluginError
from chestxray.explanation.inference_graph import Graph
from chestxray.testing.model_under_test import Subject
from chestxray.testing.results import CheckFailed, CheckSkipped, described

#: Larger networks are not exported here: tf2onnx takes 7 GB for ResNet-50's 24 million weights, 13 for ResNet-200-D.
LARGEST = 10_000_000


def check_export(subject: Subject) -> None:
    """The model becomes an ONNX file whose probabilities, and heat maps if it has any, are those of Keras."""
    lacking = [name for name in ("tf2onnx", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if lacking:
        raise CheckSkipped(f"{lacking[0]} is not installed (pip install 'chestxray[export]')")
    if (weights := subject.built.model.count_params()) > LARGEST:
        raise CheckSkipped(f"it has {weights:,} weights, and the conversion takes gigabytes: export a run of it")
    try:
        graph = Graph(subject.built.model, subject.plugin.cam_layer)
    except PluginError:  # of which `cam_layer` tells
        graph = Graph(subject.built.model, None)
    if graph.reason:  # `chestxray export` leaves its maps out too
        graph = Graph(subject.built.model, None)
    pixels = subject.images.astype(np.uint8)  # as films are given to an exported file
    found = _answers(graph, pixels)
    computed = graph.compute(keras.ops.convert_to_tensor(pixels.astype(np.float32)))
    expected = {name: keras.ops.convert_to_numpy(value) for name, value in computed.items()}
    for name, limit in (("probabilities", 1e-4), ("map", 1e-2)):
        if name not in expected:
            continue
        difference = float(np.abs(found[name] - expected[name]).max())
        if name == "map":  # as a share of the highest value: maps are in logits
            difference /= float(expected[name].max()) or 1.0
        if not difference < limit:
            raise CheckFailed(
                f"the {name} of the exported ONNX file differ from Keras's by up to {difference:.2g}",
                "is there an operation whose meaning ONNX has otherwise, such as rounding or a resize?",
            )


def _answers(graph: Graph, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of the ONNX file of `graph` for `pixels`, by name."""
    import onnxruntime

    from chestxray.export.formats import onnx_model

    try:
        content = onnx_model(graph).SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        names = [item.name for item in session.get_outputs()]
        return dict(zip(names, session.run(names, {"pixels": pixels}), strict=True))
    except ExportError as error:
        hint = "a run of it can be served by TensorFlow alone; use operations that ONNX has"
        raise CheckFailed(str(error), hint) from None
    # The converter and the runtime raise their own errors, and those of the plugin's operations.
    except Exception as error:
        raise CheckFailed(f"the model cannot be exported to ONNX: {described(error)}") from error
