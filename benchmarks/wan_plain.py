"""Videos with plain diffusers, for comparison."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from PIL import Image
from transformers import AutoTokenizer, UMT5EncoderModel

from deployments.video.checkpoints.folder import load_scheduler
from deployments.wire import VideoRequest


def load_parts(folder: Path, dtype: torch.dtype, vae_dtype: torch.dtype) -> dict[str, Any]:
    """Load tokenizer, text encoder and VAE."""
    return {
        "tokenizer": AutoTokenizer.from_pretrained(folder / "tokenizer"),
        "text_encoder": UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=dtype).to("cuda"),
        "vae": AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=vae_dtype).to("cuda"),
    }


def load_plain(folder: Path, dtype: torch.dtype, vae_dtype: torch.dtype = torch.float32) -> WanPipeline:
    """Load diffusers' text-to-video pipeline."""
    transformer = WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=dtype).to("cuda")
    return WanPipeline(transformer=transformer, scheduler=load_scheduler(folder, None), **load_parts(folder, dtype, vae_dtype))


def run(pipeline: Any, steps: int, image: Image.Image | None = None) -> float:
    """Return the seconds that a video of 832x480 with 33 frames takes."""
    pipeline.set_progress_bar_config(disable=True)
    arguments: dict[str, Any] = {"image": image} if image is not None else {}
    return timed(
        lambda: pipeline(
            **arguments,
            prompt="a cat",
            negative_prompt="",
            height=480,
            width=832,
            num_frames=33,
            num_inference_steps=steps,
            guidance_scale=6.0,
        )
    )


def run_latents(pipeline: Any, request: VideoRequest) -> torch.Tensor:
    """Return the denoised latents of ``request``."""
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        num_inference_steps=request.steps,
        guidance_scale=request.cfg,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        output_type="latent",
    ).frames
    assert isinstance(latents, torch.Tensor)
    return latents


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes, including its work on the GPU."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begun
