"""The two experts of Wan 2.2 A14B: one file each, GGUF or safetensors; two that are one are refused."""

import filecmp
import re
from pathlib import Path
from typing import Any

import torch

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Models
from deployments.video.checkpoints.gguf import load_gguf, stored_name
from deployments.video.checkpoints.single_file import load_single_file


def load_expert(path: Path, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """The expert in ``path``, configured by ``folder/part``; ``part`` is its name in a pipeline. Raises CheckpointRefused."""
    if path.suffix == ".gguf":
        expert = load_gguf(path, folder, part, dtype, device)
    elif path.suffix == ".safetensors":
        expert = load_single_file(path, folder / part, dtype, device)
    else:
        raise CheckpointRefused(f"{path}: neither a .gguf nor a .safetensors file")
    if expert.config.in_channels != 36:
        raise CheckpointRefused(f"{folder / part}: {expert.config.in_channels} input channels; image-to-video has 36")
    return expert


def require_two(high: Path, low: Path, kind: str = "") -> None:
    """Refuses what cannot be a pair. Both have the same keys and shapes: only names and contents tell them apart.

    ``kind`` is how the settings of the two end.
    """
    for path in (high, low):
        if not path.is_file():
            raise CheckpointRefused(f"{path}: no such file")
    if high.resolve() == low.resolve():
        raise CheckpointRefused(f"{high}: named as both experts; `high_noise{kind}` and `low_noise{kind}` are two files")
    for setting, path, own, other in (
        (f"high_noise{kind}", high, "high", "low"),
        (f"low_noise{kind}", low, "low", "high"),
    ):
        for says in (path.name, stored_name(path) if path.suffix == ".gguf" else ""):
            if _names(says, other) and not _names(says, own):
                raise CheckpointRefused(f"{path}: configured as `{setting}`, but by its name `{says}` it is the other expert")
    if filecmp.cmp(high, low, shallow=False):
        raise CheckpointRefused(
            f"{high} and {low} hold the same bytes; `high_noise{kind}` and `low_noise{kind}` are two experts"
        )


def _names(text: str, expert: str) -> bool:
    return re.search(rf"{expert}[-_ ]?noise", text, re.IGNORECASE) is not None


def is_quantised(models: Wan22Models) -> bool:
    """Whether a file holds quantised weights."""
    return any(path.suffix == ".gguf" for path in (models.high_noise, models.low_noise))


def dequantise(expert: Any) -> None:
    """Makes the linear layers of ``expert`` plain ones, where they are."""
    if getattr(expert, "is_quantized", False):  # files may hold plain ones
        expert.dequantize()
