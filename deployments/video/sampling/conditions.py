"""Noise and image conditions of a video, prepared by diffusers' pipelines."""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanVACEPipeline
from PIL import Image

from deployments.wire import VideoRequest


@dataclass(frozen=True)
class Conditions:
    """What a transformer's input is made of, apart from the embeddings of the prompts."""

    noise: torch.Tensor
    """The first latents, float32 ``[1, 16, t, h, w]``."""
    channels: torch.Tensor | None = None
    """Channels that follow those of the latents in the transformer's input."""
    arguments: dict[str, torch.Tensor] = field(default_factory=dict)
    """Further arguments of the transformer."""


@torch.no_grad()
def prepare_conditions(pipeline: Any, request: VideoRequest, device: torch.device) -> Conditions:
    """Return the conditions of ``request`` on ``device``, in the dtypes of ``pipeline``'s parts."""
    generator = torch.Generator("cpu").manual_seed(request.seed)
    latents: dict[str, Any] = {
        "batch_size": 1,
        "num_channels_latents": pipeline.vae.config.z_dim,
        "height": request.height,
        "width": request.width,
        "num_frames": request.num_frames,
        "dtype": torch.float32,
        "device": device,
        "generator": generator,
    }
    if isinstance(pipeline, WanVACEPipeline):
        control = _control_video(pipeline, request, generator=generator, device=device)
        return Conditions(pipeline.prepare_latents(**latents), arguments={"control_hidden_states": control})
    if isinstance(pipeline, WanImageToVideoPipeline):
        return _first_frame(pipeline, request, latents=latents, device=device)
    assert isinstance(pipeline, WanPipeline)
    return Conditions(pipeline.prepare_latents(**latents))


def _first_frame(pipeline: Any, request: VideoRequest, *, latents: dict[str, Any], device: torch.device) -> Conditions:
    """Return conditions in which the encoded first frame is part of the transformer's input."""
    transformer = pipeline.transformer
    image = _pillow_image(request)
    pixels = pipeline.video_processor.preprocess(image, height=request.height, width=request.width)
    noise, channels = pipeline.prepare_latents(image=pixels.to(device, torch.float32), **latents)
    if transformer.config.image_dim is None:
        return Conditions(noise, channels)
    embeddings = pipeline.encode_image(image, device).to(transformer.dtype)
    return Conditions(noise, channels, {"encoder_hidden_states_image": embeddings})


def _control_video(pipeline: Any, request: VideoRequest, *, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Return VACE's encoded control video and mask.

    The first frame is the image (black in the mask, so it is kept); the others are grey and white
    in the mask, so they are generated.
    """
    image = _pillow_image(request)
    rest = request.num_frames - 1
    video = [image, *[Image.new("RGB", image.size, (128, 128, 128))] * rest]
    mask = [Image.new("L", image.size, 0), *[Image.new("L", image.size, 255)] * rest]
    pixels, mask_pixels, references = pipeline.preprocess_conditions(
        video=video,
        mask=mask,
        reference_images=None,
        batch_size=1,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        dtype=torch.float32,
        device=device,
    )
    latents = pipeline.prepare_video_latents(
        video=pixels, mask=mask_pixels, reference_images=references, generator=generator, device=device
    )
    control = torch.cat([latents, pipeline.prepare_masks(mask_pixels, references, generator)], dim=1)
    assert isinstance(control, torch.Tensor)
    return control.to(pipeline.transformer.dtype)


def _pillow_image(request: VideoRequest) -> Image.Image:
    assert request.image is not None
    return Image.fromarray(request.image)
