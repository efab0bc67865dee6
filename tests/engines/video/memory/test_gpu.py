"""The memory of a GPU, with the answers of torch replaced."""

import pytest
import torch

from deployments.video.memory.gpu import GpuMemory
from deployments.video.memory.plan import GIB


@pytest.fixture
def caps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace torch's answers; return the caps that are set."""
    caps: list[float] = []

    def cap(fraction: float, device: int) -> None:
        assert isinstance(device, int), "torch refuses a device without an index"
        caps.append(fraction)

    answers = {
        "get_device_name": "a GPU",
        "mem_get_info": (70 * GIB, 80 * GIB),
        "current_device": 0,
        "memory_allocated": 4 * GIB,
        "memory_reserved": 6 * GIB,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", cap)
    return caps


def test_reserved_memory_that_is_not_allocated_is_free(caps: list[float]) -> None:
    assert GpuMemory(torch.device("cuda"), None).free_bytes() == 72 * GIB
    assert caps == []


def test_a_limit_caps_the_process(caps: list[float]) -> None:
    memory = GpuMemory(torch.device("cuda"), 20)
    assert caps == [0.25]
    assert memory.free_bytes() == 16 * GIB
    assert str(memory) == "a GPU, 4.0 of 20.0 GiB"
