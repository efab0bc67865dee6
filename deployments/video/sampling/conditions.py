"""What a video starts from and is led by: noise, and what a picture becomes for the transformer. Diffusers' pipelines prepare it."""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanVACEPipeline
from PIL import Image

from deployments.wire import VideoRequest


@dataclass(frozen=True)
class Conditions:
    """``noise`` float32 ``[1, 16, t, h, w]``; ``channels`` stand behind the latents in the transformer's input, ``arguments`` beside it."""

    noise: torch.Tensor
    channels: torch.Tensor | None = None
    arguments: dict[str, torch.Tensor] = field(default_factory=dict)


@torch.no_grad()
def prepare(pipeline: Any, request: VideoRequest, device: torch.device) -> Conditions:
    """The conditions of ``request`` on ``device``, in the types of the parts of ``pipeline``."""
    generator = torch.Generator("cpu").manual_seed(request.seed)
    size = {"height": request.height, "width": request.width, "num_frames": request.num_frames}
    common = {"dtype": torch.float32, "device": device, "generator": generator}
    if isinstance(pipeline, WanVACEPipeline):
        control = _control(pipeline, request, generator, device)
        noise = pipeline.prepare_latents(1, pipeline.vae.config.z_dim, **size, **common)
        return Conditions(noise, arguments={"control_hidden_states": control})
    if isinstance(pipeline, WanImageToVideoPipeline):
        return _picture(pipeline, request, size, common, device)
    assert isinstance(pipeline, WanPipeline)
    return Conditions(pipeline.prepare_latents(1, pipeline.vae.config.z_dim, **size, **common))


def _picture(
    pipeline: Any, request: VideoRequest, size: dict[str, int], common: dict[str, Any], device: torch.device
) -> Conditions:
    transformer = pipeline.transformer
    picture = _pillow(request)
    pixels = pipeline.video_processor.preprocess(picture, height=request.height, width=request.width)
    pixels = pixels.to(device, torch.float32)
    noise, channels = pipeline.prepare_latents(pixels, 1, pipeline.vae.config.z_dim, **size, **common)
    if transformer.config.image_dim is None:
        return Conditions(noise, channels)
    seen = pipeline.encode_image(picture, device).to(transformer.dtype)
    return Conditions(noise, channels, {"encoder_hidden_states_image": seen})


def _control(pipeline: Any, request: VideoRequest, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """VACE's control video: the first frame is given (black in the mask), the others are grey and to be made (white)."""
    picture = _pillow(request)
    rest = request.num_frames - 1
    video = [picture, *[Image.new("RGB", picture.size, (128, 128, 128))] * rest]
    mask = [Image.new("L", picture.size, 0), *[Image.new("L", picture.size, 255)] * rest]
    size = (request.height, request.width, request.num_frames)
    pixels, marks, references = pipeline.preprocess_conditions(video, mask, None, 1, *size, torch.float32, device)
    latents = pipeline.prepare_video_latents(pixels, marks, references, generator, device)
    control = torch.cat([latents, pipeline.prepare_masks(marks, references, generator)], dim=1)
    assert isinstance(control, torch.Tensor)
    return control.to(pipeline.transformer.dtype)


def _pillow(request: VideoRequest) -> Image.Image:
    assert request.image is not None
    return Image.fromarray(request.image)
