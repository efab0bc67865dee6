"""Reads ONNX graphs and changes their inputs and outputs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deployments.errors import CheckpointRefused


def read_model(path: Path) -> onnx.ModelProto:
    """Return the graph in a file; raise CheckpointRefused if it is missing or not an ONNX file."""
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    try:
        return onnx.load(path)
    except Exception as e:  # protobuf's error types differ between its implementations
        raise CheckpointRefused(f"{path}: not an ONNX file, or a truncated one ({type(e).__name__})") from e


def fix_shape(model: onnx.ModelProto, shape: Sequence[int]) -> bytes:
    """Fix the shape of the model's first input, and return the model as bytes."""
    # The import is here because it loads torch, which takes seconds.
    from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

    make_input_shape_fixed(model.graph, model.graph.input[0].name, [*shape])
    return bytes(model.SerializeToString())


def open_batch(model: onnx.ModelProto) -> bytes:
    """Make the first dimension of all inputs and outputs variable, and return the model as bytes.

    Published graphs declare a batch of 1, often without depending on it.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in constants and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "n"
    return bytes(model.SerializeToString())


def take_pixels(model: onnx.ModelProto) -> bytes:
    """Make a graph over images take and return pixels, and return the model as bytes.

    The graph maps float32 ``[n, 3, height, width]`` in -1..1 to the same; afterwards it maps uint8
    ``[n, height, width, 3]`` to the same. A quarter of the bytes then cross to the device and back,
    and the device does a conversion that takes the host as long as the device needs for a face.
    """
    graph = model.graph
    constants = {
        "pixels_shift": np.array(1.0), "pixels_scale": np.array(127.5), "pixels_half": np.array(0.5),
        "pixels_least": np.array(0.0), "pixels_most": np.array(255.0),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items())
    source, result = graph.input[0], graph.output[0]
    before = [
        helper.make_node("Cast", ["pixels"], ["pixels_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels_float"], ["pixels_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["pixels_planes", "pixels_scale"], ["pixels_scaled"]),
        helper.make_node("Sub", ["pixels_scaled", "pixels_shift"], [source.name]),
    ]
    after = [
        helper.make_node("Add", [result.name, "pixels_shift"], ["made_shifted"]),
        helper.make_node("Mul", ["made_shifted", "pixels_scale"], ["made_scaled"]),
        helper.make_node("Add", ["made_scaled", "pixels_half"], ["made_raised"]),
        helper.make_node("Floor", ["made_raised"], ["made_whole"]),
        helper.make_node("Max", ["made_whole", "pixels_least"], ["made_least"]),
        helper.make_node("Min", ["made_least", "pixels_most"], ["made_clipped"]),
        helper.make_node("Transpose", ["made_clipped"], ["made_rows"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["made_rows"], ["made_pixels"], to=TensorProto.UINT8),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    batch, channels, height, width = (side.dim_value or side.dim_param or None for side in source.type.tensor_type.shape.dim)
    # Some exports do not declare the output's shape.
    for value, name in ((source, "pixels"), (result, "made_pixels")):
        value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, [batch, height, width, channels]))
    return bytes(model.SerializeToString())
