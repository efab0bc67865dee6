"""One way in which an engine makes videos: from text, or from an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanPipeline

from deployments.video.sampling.guidance import Branch


@dataclass(frozen=True, kw_only=True, eq=False)
class Mode:
    """The models of one kind of request, and the pipeline that prepares their inputs."""

    pipeline_class: type[Any]
    """Diffusers' pipeline class that prepares latents and conditions."""
    scheduler: Any
    transformers: dict[str, Any]
    """By their names in the pipeline. With two experts, `transformer` runs the noisy steps."""
    boundary: float | None = None
    """With two experts, `transformer_2` takes over once the timestep is below 1000 times this."""
    image_encoder: dict[str, Any] | None = None
    """Image encoder and preprocessor of Wan 2.1's image models, by their names in the pipeline."""
    distilled: "Mode | None" = None
    """The mode for `acceleration: distilled`, if there is one."""
    twins: tuple[dict[str, Any], ...] = ()
    """Copies of the transformers, on each further device that runs forward passes."""
    splits_guidance: bool = True
    """Whether the two passes of a guided step run at the same time, each on half of the devices.
    Otherwise each of them runs on all."""

    @property
    def takes_image(self) -> bool:
        """Whether the transformers are conditioned on an image."""
        return self.pipeline_class is not WanPipeline

    @property
    def needs_last_frame(self) -> bool:
        """Whether the transformers have places for the embeddings of two frames."""
        return self.transformers["transformer"].config.get("pos_embed_seq_len") is not None

    @property
    def devices(self) -> Sequence[torch.device]:
        """The devices that share a step's forward passes."""
        return [transformers["transformer"].device for transformers in (self.transformers, *self.twins)]

    def team(self, branch: Branch, *, alone: bool, most: int) -> range:
        """Return the numbers of the devices that run a pass together, at most so many.

        ``alone`` says that the step has no other pass.
        """
        count = 1 + len(self.twins)
        if count == 1 or alone or not self.splits_guidance:
            return range(min(count, most))
        half = count // 2
        return range(half * branch, half * branch + min(half, most))

    def transformer_at(self, timestep: float, number: int = 0) -> Any:
        """Return the transformer for ``timestep``, 1000 to 0, on the device of this number."""
        return (self.transformers, *self.twins)[number][self.part_at(timestep)]

    def part_at(self, timestep: float) -> str:
        """Return the name of the transformer that runs at ``timestep``, 1000 to 0."""
        is_low_noise = self.boundary is not None and timestep < 1000 * self.boundary
        return "transformer_2" if is_low_noise else "transformer"
