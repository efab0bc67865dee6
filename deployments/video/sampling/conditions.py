"""Noise and image conditions of a video, prepared by diffusers' pipelines."""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanVACEPipeline
from PIL import Image

from deployments.errors import ImageNotSupported
from deployments.wire import Frames, VideoRequest


@dataclass(frozen=True)
class Conditions:
    """What a transformer's input is made of, apart from the embeddings of the prompts."""

    noise: torch.Tensor
    """The first latents, float32 ``[1, 16, t, h, w]``."""
    channels: torch.Tensor | None = None
    """Channels that follow those of the latents in the transformer's input."""
    arguments: dict[str, torch.Tensor] = field(default_factory=dict)
    """Further arguments of the transformer."""
    source: torch.Tensor | None = None
    """The latents of a video that the noise is added to, of the same shape."""


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
    noise = pipeline.prepare_latents(**latents)
    return Conditions(noise, source=None if request.source is None else _encode(pipeline, request.source, device))


def _encode(pipeline: Any, frames: Frames, device: torch.device) -> torch.Tensor:
    """Return the normalised latents of ``frames``, float32 ``[1, c, t, h, w]``."""
    vae, size = pipeline.vae, frames.shape[1:3]
    images = [Image.fromarray(frame) for frame in frames]
    video = pipeline.video_processor.preprocess_video(images, height=size[0], width=size[1])
    latents = vae.encode(video.to(device, vae.dtype)).latent_dist.mode().float()
    shape = (1, vae.config.z_dim, 1, 1, 1)
    mean, std = (torch.tensor(values).view(shape).to(device) for values in (vae.config.latents_mean, vae.config.latents_std))
    normalised: torch.Tensor = (latents - mean) * (1.0 / std)
    return normalised


def _first_frame(pipeline: Any, request: VideoRequest, *, latents: dict[str, Any], device: torch.device) -> Conditions:
    """Return conditions in which the encoded first frame is part of the transformer's input.

    The last frame is too, if there is one.
    """
    transformer = pipeline.transformer
    assert request.image is not None
    images = [Image.fromarray(image) for image in (request.image, request.last_image) if image is not None]
    first, *last = (
        pipeline.video_processor.preprocess(image, height=request.height, width=request.width).to(device, torch.float32)
        for image in images
    )
    noise, channels = pipeline.prepare_latents(image=first, last_image=last[0] if last else None, **latents)
    if transformer.config.image_dim is None:
        return Conditions(noise, channels)
    # Only models for a first and a last frame have places for two embeddings, and they need both.
    takes_both = transformer.config.pos_embed_seq_len is not None
    if takes_both and not last:
        raise ImageNotSupported("last_image", "this model makes videos between a first and a last frame; send both")
    seen = images if takes_both else images[0]
    embeddings = pipeline.encode_image(seen, device).to(transformer.dtype)
    return Conditions(noise, channels, {"encoder_hidden_states_image": embeddings})


def _control_video(pipeline: Any, request: VideoRequest, *, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Return VACE's encoded control video and mask.

    Frames that are given (the first ones, the last one) are black in the mask, so they are kept;
    the others are grey and white in the mask, so they are generated.
    """
    size = (request.width, request.height)
    video = [Image.new("RGB", size, (128, 128, 128))] * request.num_frames
    mask = [Image.new("L", size, 255)] * request.num_frames
    given = dict(enumerate(() if request.lead is None else request.lead))
    if request.image is not None:
        given[0] = request.image
    if request.last_image is not None:
        given[request.num_frames - 1] = request.last_image
    for number, frame in given.items():
        video[number], mask[number] = Image.fromarray(frame), Image.new("L", size, 0)
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
