"""The path of a request with `acceleration: distilled`: a model that was taught to need few steps and no guidance, on its own schedule."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from deployments.video.engine import Path
from deployments.video.checkpoints.lora import is_lora, with_lora


class EvenEuler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Euler's steps at even times, shifted: of four steps with shift 5 at 1000, 937.5, 833.3 and 625, as such models are taught.

    By a number of steps diffusers' own class would shift the last of them once more.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """See SchedulerMixin."""
        super().set_timesteps(sigmas=np.linspace(1, 1 / num_inference_steps, num_inference_steps), device=device)


def distilled_bytes(files: Iterable[FilePath | None], whole: int) -> tuple[tuple[int, ...], int]:
    """What ``files`` take: each whole model, of ``whole`` bytes in the type that it computes in, as stored; and all LoRAs."""
    named = [(file, is_lora(file)) for file in files if file is not None]
    models = tuple(file.stat().st_size if file.suffix == ".gguf" else whole for file, lora in named if not lora)
    return models, sum(file.stat().st_size for file, lora in named if lora)


def with_distilled(
    path: Path, files: Mapping[str, FilePath | None], shift: float, dtype: torch.dtype, load: Callable[[str, FilePath], Any]
) -> Path:
    """``path``, for whose transformers ``files`` names, each by its name in the path, a LoRA or a whole model; none: unchanged.

    ``load`` loads a whole one in the place of that name. Raises CheckpointRefused for a file that does not fit.
    """
    distilled = {}
    for name, file in files.items():
        if file is not None:
            distilled[name] = with_lora(path.transformers[name], file, dtype) if is_lora(file) else load(name, file)
    if not distilled:
        return path
    return replace(path, distilled=replace(path, transformers=distilled, scheduler=EvenEuler(shift=shift), twins=None))
