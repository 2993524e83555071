"""Writers of the export formats. Each writes a run to a path, together with its metadata."""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from chestxray._version import RESEARCH_ONLY
from chestxray.errors import ExportError
from chestxray.explanation.inference_graph import Graph
from chestxray.export.source_run import SourceRun, pixels_of
from chestxray.inference.export_metadata import FILE, KEY, OUTPUTS
from chestxray.runs.run_folder import MODEL

#: From 2022, so that older runtimes can read the file.
OPSET = 17
#: Variables with more bytes than this are kept out of tf2onnx, which needs fifty times their size in memory.
LARGE = 2**24


def write_onnx(subject: SourceRun, path: Path) -> None:
    """Write an ONNX file, converted by tf2onnx, with the metadata as a property.

    Raises:
        ExportError: an operation that ONNX does not have.
    """
    import onnx

    model = onnx_model(subject.graph)
    model.doc_string = RESEARCH_ONLY
    onnx.helper.set_model_props(model, {KEY: json.dumps(subject.description)})
    try:
        onnx.save(model, path)
    except ValueError as error:  # as protobuf says of more than 2 GB
        raise ExportError(f"The model is too large for one ONNX file: {error}") from error


def onnx_model(graph: Graph) -> Any:
    """Return `graph` as an ``onnx.ModelProto`` from ``pixels``, uint8, to its outputs by name.

    Raises:
        ExportError: an operation that ONNX does not have.
    """
    import onnx

    kernels = [variable for variable in graph.probe.variables if 4 * math.prod(variable.shape) > LARGE]

    def answer(pixels: tf.Tensor, *values: tf.Tensor) -> dict[str, tf.Tensor]:
        with keras.StatelessScope(state_mapping=list(zip(kernels, values, strict=True))):
            return graph.compute(tf.cast(pixels, tf.float32))

    names = [f"kernel_{number}" for number in range(len(kernels))]
    signature = [
        tf.TensorSpec(kernel.shape, tf.float32, name=name) for kernel, name in zip(kernels, names, strict=True)
    ]
    signature = [pixels_of(graph), *signature]
    model = _converted(tf.function(answer, input_signature=signature, autograph=False), signature)
    types = {node.op_type for node in model.graph.node}
    if strange := sorted(name for name in types if not onnx.defs.has(name, OPSET)):
        raise ExportError(f"ONNX has no counterpart to the operations {', '.join(strange)} of this architecture.")
    for item in [item for item in model.graph.input if item.name in names]:
        model.graph.input.remove(item)
    for kernel, name in zip(kernels, names, strict=True):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(kernel), name))
    # TensorFlow sorts outputs by name; other programs expect the probabilities first.
    ordered = sorted(model.graph.output, key=lambda item: OUTPUTS.index(item.name))
    del model.graph.output[:]
    model.graph.output.extend(ordered)
    return model


def _converted(function: Any, signature: list[tf.TensorSpec]) -> Any:
    with warnings.catch_warnings():
        # tf2onnx and its imports warn of deprecations in other packages.
        warnings.simplefilter("ignore")
        import tf2onnx

        logging.getLogger("tf2onnx").setLevel(
            logging.CRITICAL
        )  # operations that cannot be converted are reported below
        model, _ = tf2onnx.convert.from_function(
            function, input_signature=signature, opset=OPSET, custom_op_handlers={"Erfc": (_complement, [])}
        )
    return model


def _complement(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Replace ``Erfc``, which Keras's GELU uses and tf2onnx does not support, by 1 - ``Erf``."""
    shape, dtype = graph.get_shape(node.output[0]), graph.get_dtype(node.output[0])
    erf = graph.make_node("Erf", [node.input[0]], shapes=[shape], dtypes=[dtype])
    one = graph.make_const(f"{name}_one", np.array(1, np.float32))
    graph.remove_node(node.name)
    graph.make_node(
        "Sub", [one.output[0], erf.output[0]], name=name, outputs=node.output, shapes=[shape], dtypes=[dtype]
    )


def write_savedmodel(subject: SourceRun, path: Path) -> None:
    """Write a TensorFlow SavedModel with the signature ``serve`` and the metadata in ``assets.extra``."""
    save(subject.graph.probe, subject.compiled, path)
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / FILE).write_text(json.dumps(subject.description, indent=2), encoding="utf-8")


def save(model: keras.Model, function: Any, path: Path) -> None:
    """Write `function`, a ``tf.function`` with a signature that uses `model`, as the signature ``serve``."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", function)
    archive.write_out(str(path), verbose=False)


def write_litert(subject: SourceRun, path: Path) -> None:
    """Write a LiteRT file with built-in operations alone, in float32; the metadata are a file in the ZIP archive at
    its end, as LiteRT's own metadata.

    Raises:
        ExportError: an operation that LiteRT does not have.
    """
    path.write_bytes(litert_model(subject.graph.probe, subject.compiled))
    _append(subject, path)


def litert_model(model: keras.Model, function: Any) -> bytes:
    """Return the LiteRT file of `function`, a ``tf.function`` with a signature that uses `model`.

    Raises:
        ExportError: an operation that LiteRT does not have.
    """
    with tempfile.TemporaryDirectory() as aside:
        save(model, function, Path(aside) / "model")
        converter = tf.lite.TFLiteConverter.from_saved_model(str(Path(aside) / "model"), signature_keys=["serve"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            return _outputs_in_order(converter.convert())
        except ConverterError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(f"LiteRT has no counterpart to an operation of this architecture: {reason}") from error


def _outputs_in_order(content: bytes) -> bytes:
    """Return a LiteRT file with its output tensors in the order of `OUTPUTS`, for programs that use their position and
    not the names of the signature.
    """
    from ai_edge_litert import schema_py_generated as schema

    changed = bytearray(content)
    model = schema.Model.GetRootAs(changed, 0)
    signature = model.SignatureDefs(0)
    named = [signature.Outputs(place) for place in range(signature.OutputsLength())]
    numbers = {item.Name().decode(): item.TensorIndex() for item in named}
    ordered = [numbers[name] for name in OUTPUTS if name in numbers]
    # A view of the file's bytes: only the order changes, not the tensors.
    model.Subgraphs(signature.SubgraphIndex()).OutputsAsNumpy()[:] = ordered
    return bytes(changed)


def write_keras(subject: SourceRun, path: Path) -> None:
    """Write a copy of the run's ``model.keras``, a ZIP archive, with the metadata as an additional file."""
    shutil.copyfile(subject.run.folder / MODEL, path)
    _append(subject, path)


WRITERS: dict[str, Callable[[SourceRun, Path], None]] = {
    "onnx": write_onnx,
    "litert": write_litert,
    "savedmodel": write_savedmodel,
    "keras": write_keras,
}


def _append(subject: SourceRun, path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(FILE, json.dumps(subject.description, indent=2))
