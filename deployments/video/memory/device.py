"""The devices and dtypes that an engine runs on."""

import os

import torch

from deployments.errors import CheckpointRefused
from deployments.settings import EngineSettings, Spread, spread_problem

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


def pick_devices(first: torch.device, spread: Spread) -> tuple[torch.device, ...]:
    """Return the devices that a replica uses, all of its GPUs if ``spread`` is not ``none``.

    A CPU counts as two. Raises ``CheckpointRefused`` if torch sees a number of GPUs that ``spread``
    cannot use.
    """
    if spread == "none":
        return (first,)
    if first.type == "cpu":
        return (first, first)
    count = torch.cuda.device_count()
    if (problem := spread_problem(spread, count)) is not None:
        raise CheckpointRefused(f"`spread` is `{spread}`, which {problem}, but torch sees {count} in this replica")
    return (first, *(torch.device(first.type, number) for number in range(1, count)))


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype called ``name``; ``auto`` is bfloat16 on CUDA and float32 on the CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def set_cpu_threads(count: int) -> None:
    """Let torch use ``count`` CPU threads, or one per core that this process may use if it is 0."""
    torch.set_num_threads(count or len(os.sched_getaffinity(0)))
