"""Where the models of an engine go, on a CPU and on GPUs whose memory the tests invent."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from torch import nn

from demo.checkpoints import demo_checkpoints
from deployments.settings import VideoModels, VideoSettings
from deployments.video import placement
from deployments.video.memory.plan import GIB, Plan
from deployments.video.mode import Mode
from deployments.video.placement import EngineAssembler, place, weight_bytes

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FOLDER = demo_checkpoints().vace


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the files that are read ahead, which then does not happen."""
    files: list[Path] = []
    monkeypatch.setattr(placement, "read_ahead", files.extend)
    return files


def set_free_memory(monkeypatch: pytest.MonkeyPatch, gib: dict[torch.device, int]) -> None:
    """Give each device a GPU with so much free memory."""

    class FakeGpu:
        def __init__(self, device: torch.device, limit_gib: float | None) -> None:
            self._free = gib[device] * GIB

        def free_bytes(self) -> int:
            return self._free

    monkeypatch.setattr(placement, "GpuMemory", FakeGpu)


def place_on(device: torch.device, second: torch.device | None = None, **settings: Any) -> EngineAssembler:
    return place(
        settings=VideoSettings(**settings),
        models=VideoModels(),
        folder=FOLDER,
        dtype=torch.float32,
        devices=[device] if second is None else [device, second],
        stored=(10 * GIB, 10 * GIB),
        loras=GIB,
        placements=("quantised", "offloaded"),
    )


def test_a_cpu_keeps_everything(read: list[Path]) -> None:
    assembler = place_on(CPU)
    assert assembler.plan == Plan("kept", "kept")
    assert assembler.gpus == []
    assert read == [FOLDER / "text_encoder" / "model.safetensors"]


@pytest.mark.parametrize(
    ("free", "plan"),
    [(40, Plan("quantised", "kept")), (24, Plan("offloaded", "kept")), (5, Plan("offloaded", "offloaded"))],
)
def test_a_gpu_gets_the_fastest_plan_that_fits(
    free: int, plan: Plan, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free_memory(monkeypatch, {CUDA: free})
    assembler = place_on(CUDA)
    assert assembler.plan == plan
    assert len(assembler.gpus) == 1
    assert len(read) == 1


def test_the_smaller_of_two_gpus_decides(read: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    second = torch.device("cuda", 1)
    set_free_memory(monkeypatch, {CUDA: 80, second: 24})
    assembler = place_on(CUDA, second)
    assert assembler.plan == Plan("offloaded", "kept")
    assert len(assembler.gpus) == 2


def test_the_files_of_a_freed_text_encoder_are_not_read_ahead(read: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    set_free_memory(monkeypatch, {CUDA: 80})
    assert place_on(CUDA, text_encoder="freed").plan.text_encoder == "freed"
    assert read == []


def mode_of(transformer: nn.Module, distilled: Mode | None = None) -> Mode:
    return Mode(pipeline_class=WanPipeline, scheduler=None, transformers={"transformer": transformer}, distilled=distilled)


def assemble(plan: Plan, mode: Mode) -> Any:
    assembler = EngineAssembler(
        settings=VideoSettings(),
        models=VideoModels(),
        folder=FOLDER,
        dtype=torch.float32,
        devices=[CPU],
        gpus=(),
        plan=plan,
    )
    return assembler.assemble(text_mode=mode, image_mode=None, refusal="send no image")


def test_an_engine_that_keeps_its_weights_has_no_offloader() -> None:
    mode = mode_of(nn.Linear(2, 2))
    engine = assemble(Plan("kept", "kept"), mode)
    assert engine.offloader is None
    assert (engine.text_mode, engine.image_mode, engine.refusal) == (mode, None, "send no image")


def test_offloaded_transformers_include_distilled_ones() -> None:
    transformer, distilled = nn.Linear(2, 2), nn.Linear(2, 2)
    engine = assemble(Plan("offloaded", "kept"), mode_of(transformer, mode_of(distilled)))
    assert transformer in engine.offloader
    assert distilled in engine.offloader
    assert engine.prompts.encoder._model not in engine.offloader


def test_an_offloaded_text_encoder_shares_the_offloader_with_the_transformers() -> None:
    transformer = nn.Linear(2, 2)
    engine = assemble(Plan("offloaded", "offloaded"), mode_of(transformer))
    assert transformer in engine.offloader
    assert engine.prompts.encoder._model in engine.offloader
    kept = nn.Linear(2, 2)
    assert kept not in assemble(Plan("kept", "offloaded"), mode_of(kept)).offloader


def test_a_freed_text_encoder_is_not_loaded() -> None:
    assert assemble(Plan("kept", "freed"), mode_of(nn.Linear(2, 2))).prompts.encoder._model is None


def test_weight_bytes_are_counted_in_the_dtype_that_they_will_have() -> None:
    model = nn.Linear(3, 4, device="meta")
    assert weight_bytes(model, torch.float32) == 4 * (3 * 4 + 4)
    assert weight_bytes(model, torch.bfloat16) == 2 * (3 * 4 + 4)
