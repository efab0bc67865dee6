"""Loads a Wan transformer from one safetensors file, mostly in the original key layout.

This is the layout that Wan-Video and ComfyUI publish. Weights may be float32, float16, bfloat16,
float8 or int8, the last two with their scales (see ``quantisation``). The configuration comes from
a folder in diffusers' layout.
"""

from pathlib import Path
from typing import Any

import torch

from deployments.video.checkpoints.folder import load_transformer


def load_single_file(path: Path, part: Path, *, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the transformer in ``path``, in ``dtype`` on ``device``.

    ``part`` is the folder of its config.json. The file is mapped into memory, and each tensor is
    converted on the device. Raises ``CheckpointRefused`` for a file that does not fit.
    """
    return load_transformer(part, dtype, device=device, weights=path)
