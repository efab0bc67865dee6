"""Builds the two engines from their settings: which checkpoint gives which path."""

from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanVACEPipeline

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.kernels.install import accelerate
from deployments.video.checkpoints.folder import (
    empty_transformer,
    find_folder,
    load_image_encoder,
    load_scheduler,
    load_transformer,
    read_config,
)
from deployments.video.memory.device import pick_device, pick_dtype, pick_second, use_threads
from deployments.video.acceleration.distilled import distilled_bytes, with_distilled
from deployments.video.checkpoints.experts import dequantise, is_quantised, load_expert, require_two
from deployments.video.engine import Path, WanEngine
from deployments.video.memory.plan import Transformers
from deployments.video.placement import Placing, weight_bytes
from deployments.video.checkpoints.single_file import load_single_file
from deployments.video.checkpoints.vace import text_model

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

    second_device = None if settings.spread == "none" else pick_second(device)

    def load(folder: FilePath, weights: FilePath | None, where: torch.device = device) -> Any:
        if weights is None:
            transformer = load_transformer(folder / "transformer", dtype, where)
        else:
            transformer = load_single_file(weights, folder / "transformer", dtype, where)
        accelerate(transformer, settings, where)
        return transformer

    def load_path(folder: FilePath, weights: FilePath | None) -> Path:
        transformer = load(folder, weights)
        kind = _pipeline_kind(transformer)
        extras = None
        if getattr(transformer.config, "image_dim", None) is not None:
            extras = load_image_encoder(folder, dtype, device)
        scheduler = load_scheduler(folder, settings.flow_shift)
        twins = None if second_device is None else {"transformer": load(folder, weights, second_device)}
        return Path(kind, scheduler, {"transformer": transformer}, kind is not WanPipeline, extras=extras, twins=twins)

    second_folder = None
    if models.image is not None and (models.image != models.text or models.image_weights is not None):
        second_folder = find_folder(models.image, allow_hub=settings.allow_hub)
        _require_same_vae(text_folder, second_folder)
    folders = [folder for folder in (text_folder, second_folder) if folder is not None]
    stored = tuple(weight_bytes(empty_transformer(folder / "transformer"), dtype) for folder in folders)
    whole, loras = distilled_bytes((models.text_distilled, models.image_distilled), stored[0])
    placing = Placing(settings, text_folder, dtype, device, stored + whole, ("kept",), loras, second_device)
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

    def distil(path: Path, folder: FilePath, weights: FilePath | None) -> Path:
        files = {"transformer": weights}
        return with_distilled(path, files, settings.distilled_shift, dtype, lambda _, file: load(folder, file))

    text = _text_path(distil(first, text_folder, models.text_distilled))
    if image is not None:
        image = distil(image, second_folder or text_folder, models.image_distilled)
    elif models.image_distilled is not None:
        raise CheckpointRefused(f"{models.image_distilled}: configured as `image_distilled`, but {NO_IMAGE}")
    return placing.engine(text, image, NO_IMAGE)


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
    distilled = {"transformer": models.high_noise_distilled, "transformer_2": models.low_noise_distilled}
    if models.high_noise_distilled is not None and models.low_noise_distilled is not None:
        require_two(models.high_noise_distilled, models.low_noise_distilled, "_distilled")
    whole, loras = distilled_bytes(distilled.values(), plain)
    second = None if settings.spread == "none" else pick_second(device)
    alone = 1 if settings.spread == "experts" else 2  # experts of a device
    ways = _ways(settings, quantised=quantised)
    placing = Placing(settings, folder, dtype, device, stored[:alone] + whole[:alone], ways, loras, second)
    offloaded = device.type == "cuda" and placing.plan.transformers == "offloaded"

    def load(part: str, file: FilePath, where: torch.device | None = None) -> Any:
        where = where or (second if second and settings.spread == "experts" and part == "transformer_2" else device)
        expert = load_expert(file, folder, part, dtype, torch.device("cpu") if offloaded else where)
        if where.type == "cuda" and placing.plan.transformers == "dequantised":
            dequantise(expert)
        accelerate(expert, settings, where)
        return expert

    files = {"transformer": models.high_noise, "transformer_2": models.low_noise}
    experts = {part: load(part, file) for part, file in files.items()}
    boundary = settings.boundary or index.get("boundary_ratio") or 0.9
    twins = {part: load(part, file, second) for part, file in files.items()} if settings.spread == "guidance" else None
    path = Path(WanImageToVideoPipeline, load_scheduler(folder, settings.flow_shift), experts, True, boundary, twins=twins)
    path = with_distilled(path, distilled, settings.distilled_shift, dtype, load)
    return placing.engine(None, path, "send a picture: this model makes videos from pictures only")


def _ways(settings: Wan22Settings, *, quantised: bool) -> tuple[Transformers, ...]:
    if settings.experts != "auto":
        return (settings.experts if quantised or settings.experts == "offloaded" else "kept",)
    ways: tuple[Transformers, ...] = ("dequantised", "quantised") if quantised else ("kept",)
    return ways if settings.spread != "none" else (*ways, "offloaded")


def _text_path(path: Path) -> Path:
    """``path`` for requests without a picture: a VACE checkpoint then runs as the text model inside it."""
    if path.kind is not WanVACEPipeline:
        return path

    def within(transformers: dict[str, Any]) -> dict[str, Any]:
        return {name: text_model(transformer) for name, transformer in transformers.items()}

    return replace(
        path,
        kind=WanPipeline,
        image=False,
        transformers=within(path.transformers),
        twins=None if path.twins is None else within(path.twins),
        distilled=None if path.distilled is None else _text_path(path.distilled),
    )


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
