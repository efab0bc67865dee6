"""Devices and dtypes: an engine never falls back to a device that was not asked for."""

import pytest
import torch

from deployments.errors import CheckpointRefused
from deployments.settings import Spread, Wan26Settings
from deployments.video.memory.device import pick_device, pick_devices, pick_dtype


def test_a_gpu_that_torch_does_not_see_is_not_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(Wan26Settings()).type == "cpu"
    with pytest.raises(CheckpointRefused, match="no CUDA device"):
        pick_device(Wan26Settings(device="cuda"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(CheckpointRefused, match="torch sees none"):
        pick_device(Wan26Settings())
    assert pick_device(Wan26Settings(device="cpu")).type == "cpu"


def test_a_gpu_is_used_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [pick_device(Wan26Settings(device=device)).type for device in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]


def test_a_replica_uses_all_of_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    cases: list[tuple[Spread, int]] = [("guidance", 2), ("guidance", 8), ("sequence", 3), ("sequence", 8), ("experts", 2)]
    for spread, count in cases:
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        devices = pick_devices(cuda, spread)
        assert devices == (cuda, *(torch.device("cuda", number) for number in range(1, count)))
        assert pick_devices(cpu, spread) == (cpu, cpu)
    assert pick_devices(cuda, "none") == (cuda,)


@pytest.mark.parametrize(
    ("spread", "count", "message"),
    [
        ("guidance", 1, r"needs two GPUs or more; set `hardware\.num_gpus: 2` or `spread: none`, but torch sees 1"),
        ("sequence", 1, "needs two GPUs or more"),
        ("guidance", 3, "needs an even number of GPUs.* `spread: sequence`, but torch sees 3"),
        ("experts", 4, "needs two GPUs, one for each expert"),
    ],
)
def test_a_number_of_gpus_that_cannot_be_used_is_refused(
    spread: Spread, count: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(CheckpointRefused, match=f"`{spread}`, which {message}"):
        pick_devices(torch.device("cuda"), spread)


def test_auto_is_bfloat16_on_a_gpu_and_float32_on_a_cpu() -> None:
    assert pick_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
