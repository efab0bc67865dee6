"""Opens ONNX models, on the GPU if the replica has one: for real, or not at all.

onnxruntime falls back to the CPU silently, for instance where the CPU package shadows onnxruntime-gpu in the same folder.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

from deployments.errors import CheckpointRefused
from deployments.faces.batch import SIZES
from deployments.faces.cuda_graph import CapturedSession, Session
from deployments.settings import EngineSettings, FaceSettings

_SHADOWED = (
    "The usual cause: the package onnxruntime shadows onnxruntime-gpu; uninstall both, then install onnxruntime-gpu alone"
)


_log = logging.getLogger(__name__)


def providers(settings: FaceSettings, use_cuda: bool, *, graphs: bool = False) -> list[Any]:
    """The execution providers to ask for, the wanted one first; ``graphs``: whether runs are to be captured as CUDA graphs."""
    if not use_cuda:
        return ["CPUExecutionProvider"]
    require_cuda()
    onnxruntime.preload_dlls()  # CUDA's and cuDNN's libraries lie in packages beside it, where the system does not look
    options: dict[str, Any] = {"arena_extend_strategy": "kSameAsRequested"}
    if settings.gpu_mem_limit_bytes is not None:
        options["gpu_mem_limit"] = settings.gpu_mem_limit_bytes
    if graphs:
        options["enable_cuda_graph"] = "1"
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def session_options(settings: EngineSettings) -> onnxruntime.SessionOptions:
    """Threads as configured (0: onnxruntime's own choice, one a core)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    return options


def read_model(path: Path) -> onnx.ModelProto:
    """The graph in a file; raises CheckpointRefused if it is absent or none."""
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    try:
        return onnx.load(path)
    except Exception as e:  # protobuf's own types, which differ between its implementations
        raise CheckpointRefused(f"{path}: not an ONNX file, or a truncated one ({type(e).__name__})") from e


def fix_shape(model: onnx.ModelProto, shape: Sequence[int]) -> bytes:
    """The model with its first input's shape fixed, as bytes."""
    make_input_shape_fixed(model.graph, model.graph.input[0].name, [*shape])
    return bytes(model.SerializeToString())


def take_pixels(model: onnx.ModelProto) -> bytes:
    """A graph of pictures ``[n, 3, height, width]`` in -1..1 made one of uint8 pixels ``[n, height, width, 3]``, as bytes.

    A quarter of the bytes then cross to the device and back, and it does what the host took as long for as the device for a face.
    """
    graph = model.graph
    constants = {
        "pixels_shift": np.array(1.0), "pixels_scale": np.array(127.5), "pixels_half": np.array(0.5),
        "pixels_least": np.array(0.0), "pixels_most": np.array(255.0),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items())
    given, made = graph.input[0], graph.output[0]
    before = [
        helper.make_node("Cast", ["pixels"], ["pixels_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels_float"], ["pixels_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["pixels_planes", "pixels_scale"], ["pixels_scaled"]),
        helper.make_node("Sub", ["pixels_scaled", "pixels_shift"], [given.name]),
    ]
    after = [
        helper.make_node("Add", [made.name, "pixels_shift"], ["made_shifted"]),
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
    batch, channels, height, width = (side.dim_value or side.dim_param or None for side in given.type.tensor_type.shape.dim)
    for value, name in ((given, "pixels"), (made, "made_pixels")):  # not all exports say what comes out
        value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, [batch, height, width, channels]))
    return bytes(model.SerializeToString())


def open_session(path: Path, settings: FaceSettings, use_cuda: bool, model: bytes | None = None) -> Session:
    """A session on the wanted device, of the file or of ``model``, which was made from it; its runs are CUDA graphs where that works.

    Raises CheckpointRefused if the file is absent or unreadable, or if it would run elsewhere.
    """
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    session: Session
    if use_cuda and settings.cuda_graphs:
        try:
            session = _captured(path, settings, model)
        except Exception as e:  # onnxruntime raises types of its own, one a status code
            _log.warning("%s: cannot run as CUDA graphs, and runs node by node: %s", path.name, e)
        else:
            require_device(session, path, use_cuda)
            return session
    try:
        session = _open(path, settings, providers(settings, use_cuda), model)
    except Exception as e:
        raise CheckpointRefused(f"{path}: onnxruntime cannot load it ({type(e).__name__}: {str(e)[:300]})") from e
    require_device(session, path, use_cuda)
    return session


def _captured(path: Path, settings: FaceSettings, model: bytes | None) -> Session:
    session = CapturedSession(_open(path, settings, providers(settings, True, graphs=True), model))
    session.capture(SIZES)
    return session


def _open(path: Path, settings: FaceSettings, wanted: list[Any], model: bytes | None) -> Any:
    return onnxruntime.InferenceSession(model or str(path), session_options(settings), providers=wanted)


def require_cuda() -> None:
    """Raises CheckpointRefused if the onnxruntime that is installed has no CUDA at all."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise CheckpointRefused(f"a GPU is configured, but the installed onnxruntime has no CUDA provider. {_SHADOWED}")


def require_device(session: Any, path: Path, use_cuda: bool) -> None:
    """Raises CheckpointRefused unless ``session`` really runs on CUDA where that is wanted; forbids a later fall-back."""
    first = session.get_providers()[0]
    if use_cuda and first != "CUDAExecutionProvider":
        raise CheckpointRefused(f"{path.name}: runs on {first} though a GPU is configured. {_SHADOWED}")
    session.disable_fallback()
