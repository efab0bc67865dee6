"""Small ONNX graphs with the published signatures of the production face models.

What they compute is simple, so that tests know the result.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SCRFD_SIZE = 160
FLOAT = TensorProto.FLOAT
Values = list[onnx.ValueInfoProto]


def save(path: Path, nodes: list[onnx.NodeProto], inputs: Values, outputs: Values, **constants: npt.NDArray[Any]) -> Path:
    """Write a graph and return ``path``."""
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def scrfd(path: Path, landmarks: npt.NDArray[np.float32], box: tuple[float, float, float, float]) -> Path:
    """Write a detector with the signature of det_10g for images of 160 x 160 pixels.

    It always finds one face, at ``box`` with ``landmarks``, in pixels.
    """
    names = {8: ("448", "451", "454"), 16: ("471", "474", "477"), 32: ("494", "497", "500")}
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, npt.NDArray[Any]] = {}
    nodes.append(helper.make_node("ReduceMean", ["input.1"], ["mean"], keepdims=0))
    constants["zero"] = np.zeros((), np.float32)
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    for stride, (score, boxes, points) in names.items():
        side = SCRFD_SIZE // stride
        count = side * side * 2
        values = {score: np.zeros((count, 1)), boxes: np.zeros((count, 4)), points: np.zeros((count, 10))}
        if stride == 16:
            column, row = int((box[0] + box[2]) / 2 // stride), int((box[1] + box[3]) / 2 // stride)
            x, y = column * stride, row * stride
            i = (row * side + column) * 2
            values[score][i] = 0.9
            values[boxes][i] = np.array([x - box[0], y - box[1], box[2] - x, box[3] - y]) / stride
            values[points][i] = ((landmarks - [x, y]) / stride).ravel()
        for name, value in values.items():
            constants[f"c{name}"] = value.astype(np.float32)
            nodes.append(helper.make_node("Add", [f"c{name}", "nothing"], [name]))
    outputs = [helper.make_tensor_value_info(n[i], FLOAT, None) for i in range(3) for n in names.values()]
    inputs = [helper.make_tensor_value_info("input.1", FLOAT, [1, 3, "h", "w"])]
    return save(path, nodes, inputs, outputs, **constants)


def arcface(path: Path) -> Path:
    """Write a recogniser with the signature of w600k_r50; the embedding depends on the image."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("AveragePool", ["input.1"], ["pooled"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["683"]),
    ]
    inputs = [helper.make_tensor_value_info("input.1", FLOAT, ["n", 3, 112, 112])]
    outputs = [helper.make_tensor_value_info("683", FLOAT, ["n", 512])]
    return save(path, nodes, inputs, outputs, w=rng.normal(size=(48, 512)).astype(np.float32))


def inswapper(path: Path, contrast: float = -1.0) -> Path:
    """Write a swapper with the signature of inswapper_128.

    It returns the target, inverted by default, plus a grey that depends on the source. `buff2fs` is
    not the last initializer.
    """
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("ReduceMean", ["source"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Reshape", ["grey", "shape"], ["grey4"]),
        helper.make_node("Sub", ["target", "half"], ["around"]),
        helper.make_node("Mul", ["around", "contrast"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["inverted"]),
        helper.make_node("Add", ["inverted", "grey4"], ["sum"]),
        helper.make_node("Clip", ["sum", "low", "one"], ["output"]),
    ]
    inputs = [
        helper.make_tensor_value_info("target", FLOAT, [1, 3, 128, 128]),
        helper.make_tensor_value_info("source", FLOAT, [1, 512]),
    ]
    outputs = [helper.make_tensor_value_info("output", FLOAT, [1, 3, 128, 128])]
    return save(
        path,
        nodes,
        inputs,
        outputs,
        buff2fs=rng.normal(size=(512, 512)).astype(np.float32),
        shape=np.array([-1, 1, 1, 1], np.int64),
        half=np.full((), 0.5, np.float32),
        contrast=np.full((), contrast, np.float32),
        one=np.ones((), np.float32),
        low=np.zeros((), np.float32),
    )


def swap_model(
    path: Path,
    size: int,
    source: Sequence[int] = (512,),
    *,
    result: str = "target",
    source_first: bool = False,
    mask: bool = False,
    kind: int = FLOAT,
    **constants: npt.NDArray[Any],
) -> Path:
    """Write a graph with the signature of a swap model of ``size`` pixels.

    It returns the target as it got it, or with ``result="source"`` the mean of the source. ``mask``
    adds hyperswap's second output; ``kind`` is the type of all inputs and outputs.
    """
    axes = list(range(1, len(source) + 1))
    nodes = [
        helper.make_node("ReduceMean", ["source"], ["grey"], axes=axes, keepdims=1),
        helper.make_node("Reshape", ["grey", "shape"], ["grey4"]),
        helper.make_node("Sub", ["target", "target"], ["nothing"]),
        helper.make_node("Add", ["nothing", "grey4"], ["flat"]),
        helper.make_node("Identity", ["target" if result == "target" else "flat"], ["output"]),
    ]
    inputs = [
        helper.make_tensor_value_info("target", kind, [1, 3, size, size]),
        helper.make_tensor_value_info("source", kind, [1, *source]),
    ]
    outputs = [helper.make_tensor_value_info("output", kind, [1, 3, size, size])]
    if mask:
        nodes.append(helper.make_node("ReduceMean", ["output"], ["mask"], axes=[1], keepdims=1))
        outputs.append(helper.make_tensor_value_info("mask", kind, [1, 1, size, size]))
    shape = np.array([-1, 1, 1, 1], np.int64)
    return save(path, nodes, inputs[::-1] if source_first else inputs, outputs, shape=shape, **constants)


def converter(path: Path, factor: float = 3.0) -> Path:
    """Write a converter of embeddings, which reverses and scales them and adds 0.001."""
    nodes = [
        helper.make_node("Gemm", ["input", "reverse"], ["reversed"]),
        helper.make_node("Add", ["reversed", "little"], ["output"]),
    ]
    inputs = [helper.make_tensor_value_info("input", FLOAT, [1, 512])]
    outputs = [helper.make_tensor_value_info("output", FLOAT, [1, 512])]
    reverse = np.ascontiguousarray(np.eye(512, dtype=np.float32)[::-1] * np.float32(factor))
    return save(path, nodes, inputs, outputs, reverse=reverse, little=np.full((), 0.001, np.float32))


def restorer(
    path: Path, *, codeformer: bool, size: int = 512, weight: Sequence[int] = (1,), weight_first: bool = False
) -> Path:
    """Write a restorer with the signature of GFPGAN or CodeFormer.

    GFPGAN makes everything white; CodeFormer sets every value to 2 w - 1. ``weight`` is the shape
    of CodeFormer's weight, which may be the first input.
    """
    nodes = [helper.make_node("Mul", ["picture", "zero"], ["black"])]
    inputs = [helper.make_tensor_value_info("picture", FLOAT, [1, 3, size, size])]
    if codeformer:
        inputs.insert(0 if weight_first else 1, helper.make_tensor_value_info("weight", TensorProto.DOUBLE, weight))
        nodes += [
            helper.make_node("Cast", ["weight"], ["w"], to=FLOAT),
            helper.make_node("Add", ["w", "w"], ["w2"]),
            helper.make_node("Sub", ["w2", "one"], ["value"]),
            helper.make_node("Add", ["black", "value"], ["out"]),
        ]
    else:
        nodes.append(helper.make_node("Add", ["black", "one"], ["out"]))
    outputs = [helper.make_tensor_value_info("out", FLOAT, [1, 3, size, size])]
    return save(path, nodes, inputs, outputs, zero=np.zeros((), np.float32), one=np.ones((), np.float32))


def xseg(path: Path) -> Path:
    """Write an occlusion model like XSeg: pixels brighter than half are visible."""
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["grey"], axes=[3], keepdims=1),
        helper.make_node("Greater", ["grey", "half"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["output"], to=FLOAT),
    ]
    inputs = [helper.make_tensor_value_info("input", FLOAT, ["n", 256, 256, 3])]
    outputs = [helper.make_tensor_value_info("output", FLOAT, ["n", 256, 256, 1])]
    return save(path, nodes, inputs, outputs, half=np.full((), 0.5, np.float32))


def parser(path: Path) -> Path:
    """Write an occlusion model with the signature of a face parser.

    A pixel is skin if its normalised red is above 0, and hair otherwise.
    """
    scores = np.zeros((19, 3, 1, 1), np.float32)
    scores[1, 0], scores[17, 0] = 1, -1
    nodes = [helper.make_node("Conv", ["input", "scores"], ["output"])]
    inputs = [helper.make_tensor_value_info("input", FLOAT, [1, 3, 512, 512])]
    outputs = [helper.make_tensor_value_info("output", FLOAT, [1, 19, 512, 512])]
    return save(path, nodes, inputs, outputs, scores=scores)
