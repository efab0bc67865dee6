"""Opens ONNX models, on the GPU if the replica has one: for real, or not at all.

onnxruntime falls back to the CPU silently, for instance where the CPU package shadows onnxruntime-gpu in the same folder.
"""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from deployments.errors import CheckpointRefused
from deployments.settings import EngineSettings, FaceSettings

_SHADOWED = (
    "The usual cause: the package onnxruntime shadows onnxruntime-gpu; uninstall both, then install onnxruntime-gpu alone"
)


BATCH = 16
"""Faces that go through a graph at once: on an H200, 16 together take 1.6 ms each, one alone 3.6 ms (inswapper's shapes)."""


def providers(settings: FaceSettings, use_cuda: bool) -> list[Any]:
    """The execution providers to ask for, the wanted one first."""
    if not use_cuda:
        return ["CPUExecutionProvider"]
    require_cuda()
    onnxruntime.preload_dlls()  # CUDA's and cuDNN's libraries lie in packages beside it, where the system does not look
    options: dict[str, Any] = {"arena_extend_strategy": "kSameAsRequested"}
    if settings.gpu_mem_limit_bytes is not None:
        options["gpu_mem_limit"] = settings.gpu_mem_limit_bytes
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


def let_batch(model: onnx.ModelProto) -> bytes:
    """The model with its first dimension left open, as bytes: published graphs declare a batch of 1 that nothing in them needs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in constants and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "n"
    return bytes(model.SerializeToString())


def open_session(
    path: Path, settings: FaceSettings, use_cuda: bool, model: bytes | None = None
) -> onnxruntime.InferenceSession:
    """A session on the wanted device, of the file or of ``model``, which was made from it.

    Raises CheckpointRefused if the file is absent or unreadable, or if it would run elsewhere.
    """
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    wanted = providers(settings, use_cuda)
    try:
        session = onnxruntime.InferenceSession(model or str(path), session_options(settings), providers=wanted)
    except Exception as e:  # onnxruntime raises types of its own, one a status code
        raise CheckpointRefused(f"{path}: onnxruntime cannot load it ({type(e).__name__})") from e
    require_device(session, path, use_cuda)
    return session


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
