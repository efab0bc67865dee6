"""Devices and dtypes: an engine never falls back to a device that was not asked for."""

import pytest
import torch

from deployments.errors import CheckpointRefused
from deployments.settings import Wan26Settings
from deployments.video.memory.device import pick_device, pick_dtype, pick_second_device


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


def test_a_second_gpu_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        CheckpointRefused, match=r"needs two GPUs in this replica, but torch sees 1; set `hardware\.num_gpus: 2`"
    ):
        pick_second_device(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_second_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert pick_second_device(torch.device("cpu")) == torch.device("cpu")


def test_auto_is_bfloat16_on_a_gpu_and_float32_on_a_cpu() -> None:
    assert pick_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
