"""Builds the two engines from their settings and model files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanVACEPipeline

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.acceleration.distilled import distilled_bytes, with_distilled
from deployments.video.checkpoints.experts import dequantise, is_quantised, load_expert, require_image_input, require_pair
from deployments.video.checkpoints.folder import (
    empty_transformer,
    find_folder,
    load_image_encoder,
    load_scheduler,
    load_transformer,
    read_config,
)
from deployments.video.checkpoints.joins import Parts, require_fit
from deployments.video.checkpoints.source import Source, open_source, read_boundary
from deployments.video.checkpoints.vace import text_model
from deployments.video.engine import WanEngine
from deployments.video.kernels.install import install_fast_blocks
from deployments.video.memory.device import pick_device, pick_devices, pick_dtype, set_cpu_threads
from deployments.video.memory.plan import TransformerPlacement
from deployments.video.mode import Mode
from deployments.video.named_files import settings_named
from deployments.video.parallel.sequence import require_heads
from deployments.video.placement import place, weight_bytes

NO_IMAGE_INPUT = "a text-to-video checkpoint has no input for an image"
NO_IMAGE_MODE = (
    f"this service runs no image-to-video checkpoint, and {NO_IMAGE_INPUT}; configure an image-to-video checkpoint "
    "(Wan2.1-VACE-1.3B or one with 36 input channels) as `models.wan26.image`, or call /wan2.6 without an image"
)
ONE_CHECKPOINT = "the parts are of different checkpoints; put those of one checkpoint into the folder"
SHARED_PARTS = "the text checkpoint's text encoder and VAE serve both kinds of request; name two checkpoints that have the same"
NO_TEXT_MODE = "this model makes videos only from images; send an image"


def build_wan26(settings: Wan26Settings, models: Wan26Models) -> WanEngine:
    """Build the engine of Wan 1.3B, for text and, if a checkpoint takes images, for images.

    The text encoder and the VAE are loaded once, from the text checkpoint. Raises
    ``CheckpointRefused`` for model files that do not fit, with the settings that name them.
    """
    with settings_named(models):
        return _build_wan26(settings, models)


def _build_wan26(settings: Wan26Settings, models: Wan26Models) -> WanEngine:
    set_cpu_threads(settings.threads)
    device = pick_device(settings)
    dtype = pick_dtype(settings.dtype, device)
    devices = pick_devices(device, settings.spread)
    sources = _wan26_sources(settings, models)
    text_folder = sources[0].folder
    _require_heads(text_folder, devices)
    empty = [{part: empty_transformer(source.folder / part) for part in source.weights} for source in sources]
    for source, transformers in zip(sources, empty, strict=True):
        parts = Parts(folder=source.folder, transformers=transformers, shared=text_folder, remedy=_remedy(source, text_folder))
        require_fit(parts)
    sizes = tuple(weight_bytes(model, dtype) for transformers in empty for model in transformers.values())
    distilled = [
        source.parts_of(high, low, setting)
        for source, high, low, setting in (
            (sources[0], models.text_distilled, models.text_distilled_low_noise, "text_distilled"),
            (sources[-1], models.image_distilled, models.image_distilled_low_noise, "image_distilled"),
        )
    ]
    distilled_sizes, loras = distilled_bytes([file for files in distilled for file in files.values()], sizes[0])
    assembler = place(
        settings=settings,
        models=models,
        folder=text_folder,
        dtype=dtype,
        devices=devices,
        stored=sizes + distilled_sizes,
        loras=loras,
        placements=("kept",),
    )
    loaders = [_ModeLoader(source=source, settings=settings, dtype=dtype, devices=devices) for source in sources]
    modes = [loader.load_mode() for loader in loaders]
    if len(modes) == 2 and not modes[1].takes_image:
        raise CheckpointRefused(
            f"{sources[1].folder}: configured as `image`, but {NO_IMAGE_INPUT}; name a VACE or 36-channel checkpoint"
        )
    if modes[0].pipeline_class is WanImageToVideoPipeline:
        raise CheckpointRefused(
            f"{text_folder}: an image-to-video checkpoint; name it as `image`, and a text-to-video checkpoint as `text`"
        )
    text_mode = loaders[0].with_distilled(modes[0], distilled[0])
    image_mode = None
    if modes[-1].takes_image:
        image_mode = loaders[-1].with_distilled(modes[-1], distilled[1])
    elif models.image_distilled is not None:
        raise CheckpointRefused(f"{models.image_distilled}: configured as `image_distilled`, but {NO_IMAGE_MODE}")
    return assembler.assemble(text_mode=_without_control(text_mode), image_mode=image_mode, refusal=NO_IMAGE_MODE)


def build_wan22(settings: Wan22Settings, models: Wan22Models) -> WanEngine:
    """Build the engine of Wan 2.2 I2V-A14B, which runs two experts and switches at the boundary.

    The experts come from their own files, everything else from the folder. Raises
    ``CheckpointRefused`` for model files that do not fit, with the settings that name them.
    """
    with settings_named(models):
        return _build_wan22(settings, models)


def _build_wan22(settings: Wan22Settings, models: Wan22Models) -> WanEngine:
    set_cpu_threads(settings.threads)
    device = pick_device(settings)
    dtype = pick_dtype(settings.dtype, device)
    folder = find_folder(models.folder, allow_hub=settings.allow_hub)
    boundary = settings.boundary or read_boundary(folder)
    require_pair(models.high_noise, models.low_noise)
    if models.high_noise_distilled is not None and models.low_noise_distilled is not None:
        settings_of_pair = ("high_noise_distilled", "low_noise_distilled")
        require_pair(models.high_noise_distilled, models.low_noise_distilled, settings_of_pair)
    files = {"transformer": models.high_noise, "transformer_2": models.low_noise}
    distilled_files = {"transformer": models.high_noise_distilled, "transformer_2": models.low_noise_distilled}
    empty = {part: empty_transformer(folder / part) for part in files}
    _require_no_image_encoder(folder, empty)
    require_fit(Parts(folder=folder, transformers=empty, shared=folder, remedy=ONE_CHECKPOINT))
    size = weight_bytes(empty["transformer"], dtype)
    stored = tuple(file.stat().st_size if file.suffix == ".gguf" else size for file in files.values())
    distilled_sizes, loras = distilled_bytes(distilled_files.values(), size)
    devices = pick_devices(device, settings.spread)
    _require_heads(folder, devices)
    experts_per_device = 1 if settings.spread == "experts" else 2
    assembler = place(
        settings=settings,
        models=models,
        folder=folder,
        dtype=dtype,
        devices=devices,
        stored=stored[:experts_per_device] + distilled_sizes[:experts_per_device],
        loras=loras,
        placements=_expert_placements(settings, quantised=is_quantised(models)),
    )
    loader = _ExpertLoader(
        folder=folder,
        settings=settings,
        dtype=dtype,
        devices=devices,
        placement=assembler.plan.transformers,
    )
    mode = Mode(
        pipeline_class=WanImageToVideoPipeline,
        scheduler=load_scheduler(folder, settings.flow_shift),
        transformers={part: loader.load(part, file) for part, file in files.items()},
        boundary=boundary,
        twins=loader.load_twins(files),
        splits_guidance=settings.spread == "guidance",
    )
    mode = with_distilled(mode, distilled_files, shift=settings.distilled_shift, dtype=dtype, loader=loader)
    return assembler.assemble(text_mode=None, image_mode=mode, refusal=NO_TEXT_MODE)


@dataclass(frozen=True, kw_only=True)
class _ModeLoader:
    """Loads the transformers of a Wan26 checkpoint, and the mode that runs them."""

    source: Source
    settings: Wan26Settings
    dtype: torch.dtype
    devices: Sequence[torch.device]

    def load(self, part: str, file: Path, number: int = 0) -> Any:
        """Load the transformer in ``file``; see ``TransformerLoader``."""
        return self._load_on(self.devices[number], part, file)

    def load_mode(self) -> Mode:
        """Load the transformers and the other parts of their mode."""
        folder = self.source.folder
        transformers, *twins = (
            {part: self._load_on(device, part, file) for part, file in self.source.weights.items()} for device in self.devices
        )
        transformer = transformers["transformer"]
        has_image_encoder = getattr(transformer.config, "image_dim", None) is not None
        return Mode(
            pipeline_class=_pipeline_class(transformer),
            image_encoder=load_image_encoder(folder, self.dtype, self.devices[0]) if has_image_encoder else None,
            scheduler=load_scheduler(folder, self.settings.flow_shift),
            transformers=transformers,
            boundary=self.source.boundary,
            twins=tuple(twins),
            splits_guidance=self.settings.spread == "guidance",
        )

    def with_distilled(self, mode: Mode, files: Mapping[str, Path | None]) -> Mode:
        """Return ``mode`` with the distilled version in ``files``, or unchanged without one."""
        return with_distilled(mode, files, shift=self.settings.distilled_shift, dtype=self.dtype, loader=self)

    def _load_on(self, device: torch.device, part: str, weights: Path | None) -> Any:
        folder, dtype = self.source.folder, self.dtype
        if weights is None:
            transformer = load_transformer(folder / part, dtype, device)
        else:
            transformer = load_expert(weights, folder=folder, part=part, dtype=dtype, device=device)
        install_fast_blocks(transformer, self.settings, device)
        return transformer


@dataclass(frozen=True, kw_only=True)
class _ExpertLoader:
    """Loads experts of Wan 2.2 A14B, each on its device."""

    folder: Path
    settings: Wan22Settings
    dtype: torch.dtype
    devices: Sequence[torch.device]
    placement: TransformerPlacement

    def load(self, part: str, file: Path, number: int = 0) -> Any:
        """Load the expert in ``file``; see ``TransformerLoader``."""
        is_apart = self.settings.spread == "experts" and part == "transformer_2"
        return self._load_on(self.devices[1 if is_apart else number], part, file)

    def load_twins(self, files: dict[str, Path]) -> tuple[dict[str, Any], ...]:
        """Load the experts again on each further device, if forward passes are spread over all."""
        if self.settings.spread == "experts":
            return ()
        numbers = range(1, len(self.devices))
        return tuple({part: self.load(part, file, number) for part, file in files.items()} for number in numbers)

    def _load_on(self, device: torch.device, part: str, file: Path) -> Any:
        is_offloaded = device.type == "cuda" and self.placement == "offloaded"
        stored_on = torch.device("cpu") if is_offloaded else device
        expert = load_expert(file, folder=self.folder, part=part, dtype=self.dtype, device=stored_on)
        require_image_input(expert, self.folder / part)
        if device.type == "cuda" and self.placement == "dequantised":
            dequantise(expert)
        install_fast_blocks(expert, self.settings, device)
        return expert


def _remedy(source: Source, text_folder: Path) -> str:
    """Return what to do about parts of ``source`` that do not fit each other or the shared ones."""
    return ONE_CHECKPOINT if source.folder == text_folder else SHARED_PARTS


def _require_no_image_encoder(folder: Path, experts: Mapping[str, torch.nn.Module]) -> None:
    """Raise ``CheckpointRefused`` if an expert in ``folder`` needs an image encoder."""
    for part, expert in experts.items():
        if getattr(expert.config, "image_dim", None) is not None:
            raise CheckpointRefused(
                f"{folder / part}: has `image_dim` for an image encoder, which the experts of Wan 2.2 do without; name such a "
                "folder as `models.wan26.image`"
            )


def _require_heads(folder: Path, devices: Sequence[torch.device]) -> None:
    """Raise ``CheckpointRefused`` if the transformer in ``folder`` has fewer heads than devices."""
    try:
        require_heads(empty_transformer(folder / "transformer"), len(devices))
    except ValueError as error:
        raise CheckpointRefused(f"{folder}: {error} in a replica with `spread`") from None


def _wan26_sources(settings: Wan26Settings, models: Wan26Models) -> list[Source]:
    """Return the text checkpoint and, if it is another one, the image checkpoint."""
    folder = find_folder(models.text, allow_hub=settings.allow_hub)
    text = open_source(folder, high=models.text_weights, low=models.text_weights_low_noise, setting="text_weights")
    if models.image is None or (models.image == models.text and models.image_weights is None):
        return [text]
    folder = find_folder(models.image, allow_hub=settings.allow_hub)
    image = open_source(folder, high=models.image_weights, low=models.image_weights_low_noise, setting="image_weights")
    _require_same_vae(text.folder, image.folder)
    return [text, image]


def _expert_placements(settings: Wan22Settings, *, quantised: bool) -> tuple[TransformerPlacement, ...]:
    """Return how the experts may be kept, the fastest first."""
    if settings.experts != "auto":
        return (settings.experts if quantised or settings.experts == "offloaded" else "kept",)
    placements: tuple[TransformerPlacement, ...] = ("dequantised", "quantised") if quantised else ("kept",)
    return placements if settings.spread != "none" else (*placements, "offloaded")


def _without_control(mode: Mode) -> Mode:
    """Return ``mode`` for requests without an image.

    A VACE checkpoint then runs as the text model inside it.
    """
    if mode.pipeline_class is not WanVACEPipeline:
        return mode
    return replace(
        mode,
        pipeline_class=WanPipeline,
        transformers=_text_models(mode.transformers),
        twins=tuple(_text_models(twins) for twins in mode.twins),
        distilled=None if mode.distilled is None else _without_control(mode.distilled),
    )


def _text_models(transformers: dict[str, Any]) -> dict[str, Any]:
    return {name: text_model(transformer) for name, transformer in transformers.items()}


def _pipeline_class(transformer: Any) -> Any:
    if transformer.config.get("vace_layers") is not None:
        return WanVACEPipeline
    return WanImageToVideoPipeline if transformer.config.in_channels == 36 else WanPipeline


def _require_same_vae(one: Path, other: Path) -> None:
    """Raise ``CheckpointRefused`` if the folders' VAEs differ, because both modes share one VAE."""
    configs = [read_config(folder / "vae") for folder in (one, other)]
    differing = [
        key
        for key in ("z_dim", "latents_mean", "latents_std", "base_dim", "dim_mult")
        if configs[0].get(key) != configs[1].get(key)
    ]
    if differing:
        raise CheckpointRefused(
            f"{other / 'vae'}: differs from {one / 'vae'} in {', '.join(differing)}; both checkpoints must have the same VAE"
        )
