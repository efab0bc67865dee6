"""Where an engine runs, and in which type."""

import os

import torch

from deployments.errors import CheckpointRefused
from deployments.settings import EngineSettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(settings: EngineSettings) -> torch.device:
    """The device of ``settings``; raises CheckpointRefused where CUDA is asked for and absent: never a silent CPU."""
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise CheckpointRefused(
            "device is `cuda`, but torch sees no CUDA device in this replica; give it a GPU or set `device: cpu`"
        )
    if settings.device == "auto" and not available and os.environ.get("CUDA_VISIBLE_DEVICES"):
        raise CheckpointRefused("Ray gave this replica a GPU, but torch sees none; install a CUDA build, or set `device: cpu`")
    use_cuda = settings.device == "cuda" or (settings.device == "auto" and available)
    return torch.device("cuda" if use_cuda else "cpu")


def pick_second(device: torch.device) -> torch.device:
    """The replica's second device; of a CPU there is but one. Raises CheckpointRefused where there is but one GPU."""
    if device.type == "cpu":
        return device
    if (count := torch.cuda.device_count()) < 2:
        raise CheckpointRefused(
            f"`spread` wants two GPUs in this replica, torch sees {count}; set `hardware.num_gpus: 2`, or `spread: none`"
        )
    return torch.device(device.type, 1)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16; ``auto`` is bfloat16 on CUDA and float32 on the CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def use_threads(count: int) -> None:
    """Gives torch ``count`` CPU threads; 0: one a core that this process may use."""
    torch.set_num_threads(count or len(os.sched_getaffinity(0)))
