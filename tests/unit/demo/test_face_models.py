"""Folding of block-quantised weights, and the files that it writes."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import demo.face_models
from demo.face_models import face_models, fold


def test_constant_nodes_become_initializers_and_others_stay() -> None:
    """Two blocks of two weights each have their own scale and zero point."""
    weights = np.array([[10, 20, 30, 40]], np.uint8)
    constants = {
        "weights": weights,
        "scales": np.array([[0.5, 2.0]], np.float32),
        "zeros": np.array([[10, 20]], np.uint8),
        "shape": np.array([2, 2], np.int64),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["flat"], axis=1, block_size=2),
        helper.make_node("Reshape", ["flat", "shape"], ["matrix"]),
        helper.make_node("MatMul", ["x", "matrix"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "scales")]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    folded = fold(helper.make_model(helper.make_graph(nodes, "quantised", inputs, outputs, tensors))).graph
    assert [node.op_type for node in folded.node] == ["MatMul"]
    assert [value.name for value in folded.input] == ["x"]
    (matrix,) = folded.initializer
    assert matrix.name == "matrix"
    np.testing.assert_array_equal(numpy_helper.to_array(matrix), np.array([[0, 5], [20, 40]], np.float32))


def test_a_scale_for_each_channel_is_applied_along_its_axis() -> None:
    constants = {"weights": np.array([[1, 2], [3, 4]], np.int8), "scales": np.array([1.0, 10.0], np.float32)}
    nodes = [
        helper.make_node("DequantizeLinear", ["weights", "scales"], ["matrix"], axis=0),
        helper.make_node("MatMul", ["x", "matrix"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    folded = fold(helper.make_model(helper.make_graph(nodes, "quantised", values[:1], values[1:], tensors))).graph
    np.testing.assert_array_equal(numpy_helper.to_array(folded.initializer[0]), np.array([[1, 2], [30, 40]], np.float32))


def test_the_models_are_written_once_and_named_in_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Path] = []

    def write(folder: Path) -> None:
        calls.append(folder)
        for name in ("yunet.onnx", "sface.onnx"):
            (folder / name).touch()

    monkeypatch.setattr(demo.face_models, "write_face_models", write)
    first, second = face_models(tmp_path), face_models(tmp_path)
    assert first == second
    assert len(calls) == 1
    assert (first.detector.name, first.recogniser.name) == ("yunet.onnx", "sface.onnx")
    assert first.detector.is_file()
    assert first.detector.parent.parent == tmp_path
