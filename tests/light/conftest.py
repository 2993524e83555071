"""A model for the tests, made without TensorFlow."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.inference.export_metadata import KEY

SIZE = (16, 16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An ONNX file as `chestxray export` writes them: the brighter an image, the more probably it is sick."""
    decision = Decision(
        classes=("clear", "sick"),
        positive="sick",
        calibration=Calibration(),
        thresholds={"sick": 0.5},
        chosen_by="Youden's index",
    )
    height, width = SIZE
    nodes = [
        helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["real", "most"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["sick"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["sick", "last"], ["column"]),
        helper.make_node("Sub", ["one", "column"], ["clear"]),
        helper.make_node("Concat", ["clear", "column"], ["probabilities"], axis=1),
        helper.make_node("Squeeze", ["scaled", "channel"], ["map"]),
    ]
    constants = {
        "most": np.float32(255),
        "one": np.float32(1),
        "last": np.array([1], np.int64),
        "channel": np.array([3], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", height, width, 1])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("map", TensorProto.FLOAT, ["n", height, width]),
        ],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    description = {
        "name": "tiny",
        "model": "tiny",
        "image_size": list(SIZE),
        "fit": "stretch",
        "outputs": ["probabilities", "map"],
        "decision": decision.to_json(),
        "refusal_threshold": None,
        "heat_maps": {
            "method": "gradcam",
            "unit": "grey",
            "highest": 2.0,
            "scale": "It ends at twice the brightest grey.",
            "badge": "fails",
            "sentence": "The maps fail.",
            "reasons": [{"title": "A check", "verdict": "fails", "sentence": "They fail it."}],
        },
    }
    helper.set_model_props(made, {KEY: json.dumps(description)})
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    onnx.save(made, path)
    return path
