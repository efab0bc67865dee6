"""Distilled models: trained to need few steps and no guidance, on a schedule of their own."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from deployments.video.checkpoints.lora import is_lora, with_lora
from deployments.video.mode import Mode


class EvenEuler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Euler's method at evenly spaced times, then shifted, as such models are trained.

    Four steps with shift 5 are at 1000, 937.5, 833.3 and 625. Given a number of steps, diffusers'
    class would shift the last of them a second time.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """See diffusers' ``SchedulerMixin``."""
        super().set_timesteps(sigmas=np.linspace(1, 1 / num_inference_steps, num_inference_steps), device=device)


class TransformerLoader(Protocol):
    """Loads a transformer that replaces one of a mode's."""

    def load(self, part: str, file: Path, number: int = 0) -> Any:
        """Return the transformer in ``file``, on the device of this number.

        ``part`` is the name of the one that it replaces.
        """


def distilled_bytes(files: Iterable[Path | None], whole: int) -> tuple[tuple[int, ...], int]:
    """Return the bytes of each whole model in ``files``, and of all LoRAs together.

    A GGUF file counts as stored, and any other whole model as ``whole`` bytes, its size in the
    dtype that it computes in.
    """
    named = [(file, is_lora(file)) for file in files if file is not None]
    models = tuple(file.stat().st_size if file.suffix == ".gguf" else whole for file, lora in named if not lora)
    return models, sum(file.stat().st_size for file, lora in named if lora)


def with_distilled(
    mode: Mode, files: Mapping[str, Path | None], *, shift: float, dtype: torch.dtype, loader: TransformerLoader
) -> Mode:
    """Return ``mode`` with the distilled version in ``files``, or unchanged if all are None.

    ``files`` maps the names of the mode's transformers to a LoRA, which computes in ``dtype``, or
    to a whole model, which ``loader`` loads. ``shift`` is that of the distilled version's schedule.
    Raises ``CheckpointRefused`` for a file that does not fit.
    """
    named = {part: file for part, file in files.items() if file is not None}
    if not named:
        return mode
    transformers, *twins = (
        {
            part: with_lora(originals[part], file, dtype) if is_lora(file) else loader.load(part, file, number)
            for part, file in named.items()
        }
        for number, originals in enumerate((mode.transformers, *mode.twins))
    )
    distilled = replace(mode, transformers=transformers, scheduler=EvenEuler(shift=shift), twins=tuple(twins))
    return replace(mode, distilled=distilled)
