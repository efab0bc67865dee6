"""One way in which an engine makes videos: from text, or from an image."""

from dataclasses import dataclass
from typing import Any

from diffusers import WanPipeline

from deployments.video.sampling.guidance import Branch


@dataclass(frozen=True, kw_only=True, eq=False)
class Mode:
    """The models of one kind of request, and the pipeline that prepares their inputs."""

    pipeline_class: type[Any]
    """Diffusers' pipeline class that prepares latents and conditions."""
    scheduler: Any
    transformers: dict[str, Any]
    """By their names in the pipeline. Of two experts, `transformer` runs the noisy steps."""
    boundary: float | None = None
    """Of two experts: `transformer_2` runs once the timestep is under 1000 times this."""
    image_encoder: dict[str, Any] | None = None
    """Image encoder and preprocessor of Wan 2.1's image models, by their names in the pipeline."""
    distilled: "Mode | None" = None
    """The mode for `acceleration: distilled`, if there is one."""
    twins: dict[str, Any] | None = None
    """Copies of the transformers on a second device, for the passes without the prompt."""

    @property
    def takes_image(self) -> bool:
        """Whether the transformers are conditioned on an image."""
        return self.pipeline_class is not WanPipeline

    @property
    def devices(self) -> int:
        """The number of devices that share a step's forward passes."""
        return 1 if self.twins is None else 2

    def transformer_at(self, timestep: float, branch: Branch) -> Any:
        """Return the transformer for ``timestep``, 1000 to 0."""
        is_low_noise = self.boundary is not None and timestep < 1000 * self.boundary
        transformers = self.transformers if branch == 0 or self.twins is None else self.twins
        return transformers["transformer_2" if is_low_noise else "transformer"]
