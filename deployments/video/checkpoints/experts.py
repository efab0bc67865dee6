"""The two experts of Wan 2.2 A14B: one file each, GGUF or safetensors."""

import filecmp
import re
from pathlib import Path
from typing import Any

import torch

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Models
from deployments.video.checkpoints.gguf import load_gguf, stored_name
from deployments.video.checkpoints.single_file import load_single_file


def load_expert(path: Path, *, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the expert in ``path`` with the configuration in ``folder/part``.

    ``part`` is the expert's name in a pipeline. Raises ``CheckpointRefused`` for a file that does
    not fit.
    """
    if path.suffix == ".gguf":
        expert = load_gguf(path, folder=folder, part=part, dtype=dtype, device=device)
    elif path.suffix == ".safetensors":
        expert = load_single_file(path, folder / part, dtype=dtype, device=device)
    else:
        raise CheckpointRefused(f"{path}: an expert must be a .gguf or a .safetensors file")
    if expert.config.in_channels != 36:
        raise CheckpointRefused(
            f"{folder / part}: the model has {expert.config.in_channels} input channels; image-to-video needs 36"
        )
    return expert


def require_pair(high: Path, low: Path, suffix: str = "") -> None:
    """Raise ``CheckpointRefused`` if the two files cannot be the two experts.

    Both experts have the same keys and shapes, so only names and contents distinguish them.
    ``suffix`` is the end of both settings' names, for the error.
    """
    settings = f"`high_noise{suffix}` and `low_noise{suffix}`"
    for path in (high, low):
        if not path.is_file():
            raise CheckpointRefused(f"{path}: no such file")
    if high.resolve() == low.resolve():
        raise CheckpointRefused(f"{high}: configured as both experts; {settings} must be two files")
    for path, expert, other in ((high, "high", "low"), (low, "low", "high")):
        for name in (path.name, stored_name(path) if path.suffix == ".gguf" else ""):
            if _mentions(name, other) and not _mentions(name, expert):
                raise CheckpointRefused(
                    f"{path}: configured as `{expert}_noise{suffix}`, but its name `{name}` says that it is the other expert"
                )
    if filecmp.cmp(high, low, shallow=False):
        raise CheckpointRefused(f"{high} and {low} have the same content; {settings} must be two different experts")


def _mentions(text: str, expert: str) -> bool:
    return re.search(rf"{expert}[-_ ]?noise", text, re.IGNORECASE) is not None


def is_quantised(models: Wan22Models) -> bool:
    """Return whether an expert's file may hold quantised weights."""
    return any(path.suffix == ".gguf" for path in (models.high_noise, models.low_noise))


def dequantise(expert: Any) -> None:
    """Replace the quantised linear layers of ``expert`` by plain ones, in place."""
    if getattr(expert, "is_quantized", False):  # a file may also hold plain weights
        expert.dequantize()
