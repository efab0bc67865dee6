"""The devices and dtypes that an engine runs on."""

import os

import torch

from deployments.errors import CheckpointRefused
from deployments.settings import EngineSettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(settings: EngineSettings) -> torch.device:
    """Return the device that ``settings`` ask for.

    Raises ``CheckpointRefused`` where a GPU is expected but torch sees none: an engine never falls
    back to the CPU.
    """
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise CheckpointRefused(
            "`device` is `cuda`, but torch sees no CUDA device in this replica; give the replica a GPU or set `device: cpu`"
        )
    if settings.device == "auto" and not available and os.environ.get("CUDA_VISIBLE_DEVICES"):
        raise CheckpointRefused("Ray gave this replica a GPU, but torch sees none; install a CUDA build or set `device: cpu`")
    use_cuda = settings.device == "cuda" or (settings.device == "auto" and available)
    return torch.device("cuda" if use_cuda else "cpu")


def pick_second_device(device: torch.device) -> torch.device:
    """Return the second device of the replica whose first is ``device``; for a CPU, the same one.

    Raises ``CheckpointRefused`` where torch sees a single GPU.
    """
    if device.type == "cpu":
        return device
    if (count := torch.cuda.device_count()) < 2:
        raise CheckpointRefused(
            f"`spread` needs two GPUs in this replica, but torch sees {count}; set `hardware.num_gpus: 2` or `spread: none`"
        )
    return torch.device(device.type, 1)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype called ``name``; ``auto`` is bfloat16 on CUDA and float32 on the CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def set_cpu_threads(count: int) -> None:
    """Let torch use ``count`` CPU threads, or one per core that this process may use if it is 0."""
    torch.set_num_threads(count or len(os.sched_getaffinity(0)))
