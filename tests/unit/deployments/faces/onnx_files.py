"""ONNX files of a node or two, so that tests know what a model returns."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    *,
    given: list[int | str],
    result: list[int | str],
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
) -> Path:
    """Write a graph that maps the input `given` to the output `result`, by default floats."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("given", kind, given)],
        [helper.make_tensor_value_info("result", kind, result)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return path
