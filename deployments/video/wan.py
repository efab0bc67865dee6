"""Builds the two engines from their settings: which checkpoint gives which path."""

from pathlib import Path as FilePath
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanVACEPipeline

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.acceleration import accelerate
from deployments.video.checkpoints import (
    empty_transformer,
    find_folder,
    load_image_encoder,
    load_scheduler,
    load_transformer,
    read_config,
)
from deployments.video.device import pick_device, pick_dtype, use_threads
from deployments.video.experts import dequantise, is_quantised, load_experts, require_two
from deployments.video.generate import Path, WanEngine
from deployments.video.memory import Transformers
from deployments.video.placing import Placing, weight_bytes
from deployments.video.single_file import load_single_file
from deployments.video.vace import text_model

NO_INPUT = "a text-to-video checkpoint has no input for a picture"
NO_IMAGE = (
    f"this service runs no image-to-video checkpoint, and {NO_INPUT}; configure an image-to-video checkpoint "
    "(Wan2.1-VACE-1.3B or one with 36 input channels) as `models.wan26.image`, or call /wan2.6 without a picture"
)


def build_wan26(settings: Wan26Settings, models: Wan26Models) -> WanEngine:
    """Wan 1.3B: the text path, and the image path if a checkpoint can; text encoder and VAE are loaded once."""
    use_threads(settings.threads)
    device = pick_device(settings)
    dtype = pick_dtype(settings.dtype, device)
    text_folder = find_folder(models.text, allow_hub=settings.allow_hub)

    def load_path(folder: FilePath, weights: FilePath | None) -> Path:
        if weights is None:
            transformer = load_transformer(folder / "transformer", dtype, device)
        else:
            transformer = load_single_file(weights, folder / "transformer", dtype, device)
        accelerate(transformer, settings, device)
        kind = _pipeline_kind(transformer)
        extras = None
        if getattr(transformer.config, "image_dim", None) is not None:
            extras = load_image_encoder(folder, dtype, device)
        scheduler = load_scheduler(folder, settings.flow_shift)
        return Path(kind, scheduler, {"transformer": transformer}, kind is not WanPipeline, extras=extras)

    second_folder = None
    if models.image is not None and (models.image != models.text or models.image_weights is not None):
        second_folder = find_folder(models.image, allow_hub=settings.allow_hub)
        _require_same_vae(text_folder, second_folder)
    folders = [folder for folder in (text_folder, second_folder) if folder is not None]
    stored = tuple(weight_bytes(empty_transformer(folder / "transformer"), dtype) for folder in folders)
    placing = Placing(settings, text_folder, dtype, device, stored, ("kept",))
    first, second = load_path(text_folder, models.text_weights), None
    if second_folder is not None:
        second = load_path(second_folder, models.image_weights)
        if not second.image:
            raise CheckpointRefused(
                f"{second_folder}: configured for images, but {NO_INPUT}; name a VACE or 36-channel checkpoint"
            )
    if first.kind is WanImageToVideoPipeline:
        raise CheckpointRefused(
            f"{text_folder}: an image-to-video checkpoint; name it as `image`, and a text checkpoint as `text`"
        )
    image = next((path for path in (second, first) if path is not None and path.image), None)
    return placing.engine(_text_path(first), image, NO_IMAGE)


def build_wan22(settings: Wan22Settings, models: Wan22Models) -> WanEngine:
    """Wan 2.2 I2V-A14B: both experts from GGUF, switched at the boundary; everything else from the folder."""
    use_threads(settings.threads)
    device = pick_device(settings)
    dtype = pick_dtype(settings.dtype, device)
    folder = find_folder(models.folder, allow_hub=settings.allow_hub)
    index = read_config(folder, "model_index.json")
    require_two(models.high_noise, models.low_noise)
    plain = weight_bytes(empty_transformer(folder / "transformer"), dtype)
    quantised = is_quantised(models)
    stored = tuple(path.stat().st_size if path.suffix == ".gguf" else plain for path in (models.high_noise, models.low_noise))
    placing = Placing(settings, folder, dtype, device, stored, _ways(settings, quantised=quantised))
    offloaded = device.type == "cuda" and placing.plan.transformers == "offloaded"
    experts = load_experts(models, folder, dtype, torch.device("cpu") if offloaded else device)
    if device.type == "cuda" and placing.plan.transformers == "dequantised":
        dequantise(experts.values())
    for expert in experts.values():
        accelerate(expert, settings, device)
    boundary = settings.boundary or index.get("boundary_ratio") or 0.9
    path = Path(WanImageToVideoPipeline, load_scheduler(folder, settings.flow_shift), experts, True, boundary)
    return placing.engine(None, path, "send a picture: this model makes videos from pictures only")


def _ways(settings: Wan22Settings, *, quantised: bool) -> tuple[Transformers, ...]:
    if settings.experts != "auto":
        return (settings.experts if quantised or settings.experts == "offloaded" else "kept",)
    return ("dequantised", "quantised", "offloaded") if quantised else ("kept", "offloaded")


def _text_path(path: Path) -> Path:
    """``path`` for requests without a picture: a VACE checkpoint then runs as the text model inside it."""
    if path.kind is not WanVACEPipeline:
        return path
    return Path(WanPipeline, path.scheduler, {"transformer": text_model(path.transformers["transformer"])}, image=False)


def _pipeline_kind(transformer: Any) -> Any:
    if transformer.config.get("vace_layers") is not None:
        return WanVACEPipeline
    return WanImageToVideoPipeline if transformer.config.in_channels == 36 else WanPipeline


def _require_same_vae(one: FilePath, other: FilePath) -> None:
    """Both paths share one VAE: latents of another would decode to garbage."""
    configs = [read_config(folder / "vae") for folder in (one, other)]
    differing = [
        key
        for key in ("z_dim", "latents_mean", "latents_std", "base_dim", "dim_mult")
        if configs[0].get(key) != configs[1].get(key)
    ]
    if differing:
        raise CheckpointRefused(
            f"{other / 'vae'}: differs from {one / 'vae'} in {', '.join(differing)}; both must be of one VAE"
        )
