"""Opens ONNX models on the device that is configured, or not at all.

onnxruntime falls back to the CPU silently, for instance if the package for the CPU shadows
onnxruntime-gpu in the same folder.
"""

import logging
from pathlib import Path
from typing import Any

import onnxruntime

from deployments.errors import CheckpointRefused
from deployments.faces.models.batch import SIZES
from deployments.faces.models.cuda_graph import CapturedSession, Session
from deployments.settings import EngineSettings, FaceSettings

_SHADOWED = (
    "The usual cause: the package onnxruntime shadows onnxruntime-gpu; uninstall both, then install onnxruntime-gpu alone"
)
_log = logging.getLogger(__name__)


def providers(settings: FaceSettings, use_cuda: bool, *, graphs: bool = False) -> list[Any]:
    """Return the execution providers to request, in order of preference.

    ``graphs`` enables the capture of runs as CUDA graphs. Raises CheckpointRefused if CUDA is to be
    used but the installed onnxruntime does not support it.
    """
    if not use_cuda:
        return ["CPUExecutionProvider"]
    require_cuda()
    # This finds the CUDA and cuDNN libraries in Python packages, where the system does not look.
    onnxruntime.preload_dlls()
    options: dict[str, Any] = {"arena_extend_strategy": "kSameAsRequested"}
    if settings.gpu_mem_limit_bytes is not None:
        options["gpu_mem_limit"] = settings.gpu_mem_limit_bytes
    if graphs:
        options["enable_cuda_graph"] = "1"
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def session_options(settings: EngineSettings) -> onnxruntime.SessionOptions:
    """Return options with the configured number of threads; 0 means one per core.

    A thread without work sleeps.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    # Threads that spin while they wait for others of theirs keep a core from these.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(path: Path, settings: FaceSettings, use_cuda: bool, model: bytes | None = None) -> Session:
    """Open a session for the model file ``path``, or for ``model``, a changed copy of it.

    On a GPU its runs are CUDA graphs if the model allows that. Raises CheckpointRefused if the file
    is missing or unreadable, or if the session would run on another device.
    """
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    session: Session
    if use_cuda and settings.cuda_graphs:
        try:
            session = _captured(path, settings, model)
        except Exception as e:  # onnxruntime raises one type per status code
            _log.warning("%s: cannot run as CUDA graphs, and runs node by node: %s", path.name, e)
        else:
            require_device(session, path, use_cuda)
            return session
    try:
        session = _open(path, settings, requested=providers(settings, use_cuda), model=model)
    except Exception as e:
        raise CheckpointRefused(f"{path}: onnxruntime cannot load it ({type(e).__name__}: {str(e)[:300]})") from e
    require_device(session, path, use_cuda)
    return session


def _captured(path: Path, settings: FaceSettings, model: bytes | None) -> Session:
    session = CapturedSession(_open(path, settings, requested=providers(settings, True, graphs=True), model=model))
    session.capture(SIZES)
    return session


def _open(path: Path, settings: FaceSettings, *, requested: list[Any], model: bytes | None) -> Any:
    return onnxruntime.InferenceSession(model or str(path), session_options(settings), providers=requested)


def require_cuda() -> None:
    """Raise CheckpointRefused if the installed onnxruntime does not support CUDA."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise CheckpointRefused(f"a GPU is configured, but the installed onnxruntime has no CUDA provider. {_SHADOWED}")


def require_device(session: Any, path: Path, use_cuda: bool) -> None:
    """Raise CheckpointRefused if CUDA is to be used but ``session`` does not run on it.

    Afterwards the session cannot fall back to another device.
    """
    first = session.get_providers()[0]
    if use_cuda and first != "CUDAExecutionProvider":
        raise CheckpointRefused(f"{path.name}: runs on {first} though a GPU is configured. {_SHADOWED}")
    session.disable_fallback()
