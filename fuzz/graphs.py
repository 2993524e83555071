"""ONNX files: changed bytes, changed descriptions, graphs that read files, take memory or never end."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.inference.export_metadata import KEY
from chestxray.serve.loading import open_models
from fuzz.mutation import mutated
from fuzz.runs import _replaced as replaced

#: Seconds that one answer may take.
_SECONDS = 2.0


def prepare(folder: Path, _: contextlib.ExitStack) -> Callable[[random.Random], None]:
    """A case that opens one file and asks it once, as the server does at its start."""
    honest = _file(_mean())
    (folder / "secret.bin").write_bytes(np.full(64, 7.0, "f4").tobytes())

    # What is refused before it is changed would never be looked into.
    (folder / "honest.onnx").write_bytes(honest)
    open_models([folder / "honest.onnx"], _SECONDS)

    def case(rng: random.Random) -> None:
        way = rng.randrange(10)
        if way < 6:
            content = mutated(rng, honest)
        elif way < 8:
            content = _file(_mean(), replaced(rng, _described()))
        else:
            content = _file(rng.choice((_endless, _wide, _foreign, _outside))(rng))
        path = folder / "a.onnx"
        path.write_bytes(content)
        open_models([path], _SECONDS)

    return case


def _described() -> dict[str, Any]:
    decision = Decision(("clear", "sick"), "sick", Calibration(0.05), {"sick": 0.5}, "hand", (), None, None, None)
    return {
        "name": "run", "model": "tiny", "image_size": [8, 6], "fit": "stretch", "outputs": ["probabilities"],
        "decision": decision.to_json(), "refusal_threshold": None,
    }  # fmt: skip


def _file(graph: onnx.GraphProto, described: object = None) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)])
    model.ir_version = 8
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(_described() if described is None else described)
    return bytes(model.SerializeToString())


def _graph(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> onnx.GraphProto:
    taken = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 8, 6, 1])
    given = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "graph", [taken], [given], constants)


def _mean() -> onnx.GraphProto:
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [1, 2], [0.002, 0.001])
    return _graph(
        [
            helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        ],
        [weights],
    )


def _endless(_: random.Random) -> onnx.GraphProto:
    """A loop of 2 ** 62 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still"]),
            helper.make_node("Sqrt", ["value"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    most = helper.make_tensor("most", TensorProto.INT64, [], [2**62])
    go = helper.make_tensor("first", TensorProto.BOOL, [], [True])
    cast = helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT)
    return _graph(
        [cast, helper.make_node("Loop", ["most", "first", "float"], ["probabilities"], body=body)], [most, go]
    )


def _wide(rng: random.Random) -> onnx.GraphProto:
    """A tensor of so many elements, made from a few bytes; when it is loaded, or when it is asked."""
    size = helper.make_tensor("size", TensorProto.INT64, [1], [rng.choice((10**8, 10**10, 10**12, 2**62, -1))])
    return _graph([helper.make_node("ConstantOfShape", ["size"], ["probabilities"])], [size])


def _foreign(rng: random.Random) -> onnx.GraphProto:
    """Operators that are nowhere, or that other programs bring."""
    domain = rng.choice(("elsewhere", "com.microsoft", "ai.onnx.contrib", "com.microsoft.nchwc"))
    kind = rng.choice(("PyOp", "PythonOp", "ATen", "Eval", "Inverse", "Tokenizer"))
    return _graph([helper.make_node(kind, ["pixels"], ["probabilities"], domain=domain)], [])


def _outside(rng: random.Random) -> onnx.GraphProto:
    """Weights that lie in another file, of any path."""
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[1, 2], data_location=TensorProto.EXTERNAL)
    place = rng.choice(
        ("/etc/passwd", "../../../etc/passwd", "/dev/zero", "/proc/self/environ", "absent.bin", "\0", ".")
    )
    for key, value in (("location", place), ("offset", str(rng.choice((0, -1, 2**62)))), ("length", "8")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    graph = _mean()
    graph.initializer[0].CopyFrom(tensor)
    return graph
