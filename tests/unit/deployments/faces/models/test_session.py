"""A session runs on the device that is configured, or does not open."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from deployments.errors import CheckpointRefused
from deployments.faces.models import session as session_module
from deployments.faces.models.cuda_graph import CapturedSession
from deployments.faces.models.session import open_session, providers, require_device, session_options
from deployments.settings import FaceSettings
from tests.unit.deployments.faces.onnx_files import write

SETTINGS = FaceSettings(device="cpu", threads=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of a model that negates its input."""
    return write(tmp_path / "negative.onnx", [helper.make_node("Neg", ["given"], ["result"])], given=["n", 2], result=["n", 2])


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An onnxruntime that says that it supports CUDA; the requested providers of each session."""
    requested: list[Any] = []
    real = onnxruntime.InferenceSession

    def open_on_cpu(model: object, options: object, *, providers: list[Any]) -> Any:
        requested.append(providers)
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_on_cpu)
    return requested


def test_a_file_is_opened_on_the_cpu_with_the_threads_of_the_settings(model: Path) -> None:
    session = open_session(model, SETTINGS, use_cuda=False)
    np.testing.assert_array_equal(session.run(None, {"given": np.array([[1, -2]], np.float32)})[0], [[-1, 2]])
    options = session_options(SETTINGS)
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert providers(SETTINGS, use_cuda=False) == ["CPUExecutionProvider"]


def test_a_changed_copy_is_opened_instead_of_the_file(model: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "abs.onnx", [helper.make_node("Abs", ["given"], ["result"])], given=["n", 2], result=["n", 2])
    session = open_session(model, SETTINGS, use_cuda=False, model=other.read_bytes())
    np.testing.assert_array_equal(session.run(None, {"given": np.array([[1, -2]], np.float32)})[0], [[1, 2]])


def test_a_file_that_is_missing_or_no_model_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match=r"gone\.onnx: no such file"):
        open_session(tmp_path / "gone.onnx", SETTINGS, use_cuda=False)
    (tmp_path / "text.onnx").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(CheckpointRefused, match=r"text\.onnx: onnxruntime cannot load it"):
        open_session(tmp_path / "text.onnx", SETTINGS, use_cuda=False)


def test_a_gpu_without_an_onnxruntime_for_it_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(CheckpointRefused, match="no CUDA provider"):
        open_session(model, FaceSettings(cuda_graphs=False), use_cuda=True)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("graphs", [True, False])
def test_a_session_that_silently_runs_on_the_cpu_is_refused(model: Path, graphs: bool) -> None:
    with pytest.raises(CheckpointRefused, match="runs on CPUExecutionProvider though a GPU is configured"):
        open_session(model, FaceSettings(cuda_graphs=graphs), use_cuda=True)


def test_the_memory_of_the_gpu_is_limited_and_graphs_are_asked_for(cuda: list[Any]) -> None:
    limited = FaceSettings(gpu_mem_limit_bytes=2**30)
    (name, options), fallback = providers(limited, use_cuda=True, graphs=True)
    assert (name, fallback) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options == {"arena_extend_strategy": "kSameAsRequested", "gpu_mem_limit": 2**30, "enable_cuda_graph": "1"}
    assert providers(FaceSettings(), use_cuda=True)[0][1] == {"arena_extend_strategy": "kSameAsRequested"}
    assert cuda == [], "nothing is opened"


def test_a_model_that_cannot_run_as_graphs_runs_node_by_node(
    model: Path, cuda: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: CapturedSession, sizes: object) -> None:
        raise RuntimeError("this node runs on the CPU")

    monkeypatch.setattr(CapturedSession, "capture", fail)
    monkeypatch.setattr(session_module, "require_device", lambda *_: None)
    session = open_session(model, FaceSettings(), use_cuda=True)
    assert isinstance(session, onnxruntime.capi.onnxruntime_inference_collection.InferenceSession)
    assert [options.get("enable_cuda_graph") for ((_, options), _) in cuda] == ["1", None]
    assert "negative.onnx: cannot run as CUDA graphs, and runs node by node: this node runs on the CPU" in caplog.text


def test_a_session_on_its_device_can_never_fall_back_to_another() -> None:
    disabled: list[bool] = []
    session = SimpleNamespace(
        get_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        disable_fallback=lambda: disabled.append(True),
    )
    require_device(session, Path("model.onnx"), use_cuda=True)
    assert disabled == [True]
