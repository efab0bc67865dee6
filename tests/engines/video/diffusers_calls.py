"""Calls of diffusers' own pipelines, for comparison."""

from typing import Any

import torch

from deployments.wire import VideoRequest


def diffusers_arguments(request: VideoRequest) -> dict[str, Any]:
    """Return a pipeline's arguments that give the latents of ``request``, without its image."""
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        "num_frames": request.num_frames,
        "num_inference_steps": request.steps,
        "guidance_scale": request.cfg,
        "generator": torch.Generator().manual_seed(request.seed),
        "output_type": "latent",
    }
