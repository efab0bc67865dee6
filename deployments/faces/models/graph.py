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
    """Fix the shape of the model's first input, and return the model as bytes.

    Raises ValueError if the input has another number of sides, or a side that is fixed already. A
    side that is variable under a name is fixed wherever the graph has that name. A function of
    onnxruntime does the same, but its module loads torch, which takes seconds.
    """
    graph = model.graph
    sides = graph.input[0].type.tensor_type.shape.dim
    given = tuple(side.dim_value or side.dim_param for side in sides)
    if len(given) != len(shape) or any(isinstance(a, int) and a not in (0, b) for a, b in zip(given, shape, strict=True)):
        raise ValueError(f"the first input has the shape {given}, and cannot have {tuple(shape)}")
    named = {side.dim_param: length for side, length in zip(sides, shape, strict=True) if side.dim_param}
    for side, length in zip(sides, shape, strict=True):
        side.dim_value = length
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in named:
                side.dim_value = named[side.dim_param]
    return bytes(model.SerializeToString())


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a caller feeds; old exports also list their constants as inputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """Return the sides of an input or output, None for a variable one.

    The result itself is None if the file does not declare the shape.
    """
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(side.dim_value or None for side in value.type.tensor_type.shape.dim)


def image_input(model: onnx.ModelProto) -> onnx.ValueInfoProto | None:
    """Return the first input that is a batch of images; exports order their inputs differently."""
    return next((value for value in inputs_of(model) if len(shape_of(value) or ()) == 4), None)


def take_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make a graph over float16 take and return float32; it still computes in float16.

    The model is changed in place. Other types stay as they are.
    """
    graph = model.graph
    before, after = [], []
    for value in inputs_of(model):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            inner = f"{value.name}_as_float16"
            _rename_reads(graph, value.name, inner)
            before.append(helper.make_node("Cast", [value.name], [inner], to=TensorProto.FLOAT16))
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            inner = f"{value.name}_as_float16"
            _rename_reads(graph, value.name, inner)
            for node in graph.node:
                node.output[:] = [inner if name == value.name else name for name in node.output]
            after.append(helper.make_node("Cast", [inner], [value.name], to=TensorProto.FLOAT))
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _rename_reads(graph: onnx.GraphProto, name: str, new: str) -> None:
    """Rename a tensor where nodes read it, in subgraphs too."""
    for node in graph.node:
        node.input[:] = [new if read == name else read for read in node.input]
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _rename_reads(subgraph, name, new)


def open_batch(model: onnx.ModelProto) -> bytes:
    """Make the first dimension of all inputs and outputs variable, and return the model as bytes.

    Published graphs declare a batch of 1, often without depending on it.
    """
    for value in (*inputs_of(model), *model.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "n"
    return bytes(model.SerializeToString())


def take_pixels(model: onnx.ModelProto) -> bytes:
    """Make a graph over images take and return pixels, and return the model as bytes.

    The graph maps float32 ``[n, 3, height, width]`` in -1..1 to the same; afterwards it maps uint8
    ``[n, height, width, 3]`` to the same. A quarter of the bytes then cross to the device and back,
    and the device does a conversion that takes the host as long as the device needs for a face.
    Other inputs and outputs stay as they are. Raises ValueError if no input is a batch of images.
    """
    graph = model.graph
    source, result = image_input(model), graph.output[0]
    if source is None:
        raise ValueError("no input is a batch of images")
    constants = {
        "pixels_shift": np.array(1.0), "pixels_scale": np.array(127.5), "pixels_half": np.array(0.5),
        "pixels_least": np.array(0.0), "pixels_most": np.array(255.0),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items())
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
