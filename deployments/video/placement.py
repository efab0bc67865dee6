"""Decides where each model goes before anything is loaded, and assembles the engine."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from deployments.lora_folder import LoraFolder
from deployments.settings import VideoModels, VideoSettings
from deployments.video.acceleration.choice import AccelerationOptions
from deployments.video.acceleration.fp8 import CAPABILITY, pays
from deployments.video.checkpoints.folder import (
    empty_text_encoder,
    empty_transformer,
    load_text_encoder,
    load_tokenizer,
    load_vae,
)
from deployments.video.checkpoints.read_ahead import read_ahead
from deployments.video.checkpoints.tensor_files import find_files
from deployments.video.engine import WanEngine
from deployments.video.kernels.attention import describe_attention
from deployments.video.kernels.install import pick_operations
from deployments.video.loras import LoraShelf
from deployments.video.memory.device import pick_dtype
from deployments.video.memory.gpu import GpuMemory
from deployments.video.memory.offload import WeightOffloader
from deployments.video.memory.plan import Plan, TransformerPlacement, WeightSizes, choose_plan
from deployments.video.mode import Mode
from deployments.video.sampling.prompts import PromptEmbedder
from deployments.video.sampling.text_encoder import TextEncoder
from deployments.video.vae.fast import install_fast_modules


def place(
    *,
    settings: VideoSettings,
    models: VideoModels,
    folder: Path,
    dtype: torch.dtype,
    devices: Sequence[torch.device],
    stored: tuple[int, ...],
    loras: int,
    placements: Sequence[TransformerPlacement],
) -> "EngineAssembler":
    """Choose the memory plan, start to read the text encoder's files, and return the assembler.

    ``folder`` has the text encoder, the tokenizer and the VAE, whose weights ``models`` may name
    elsewhere. ``stored`` has the bytes of each
    transformer on the first of ``devices`` as stored, ``loras`` those of all LoRAs beside them, and
    ``placements`` how the transformers may be kept, the fastest first. The other devices hold as
    much or less.
    """
    device = devices[0]
    gpus: list[GpuMemory] = []
    plan = Plan("kept", "kept")  # a CPU has a single memory, so there is nothing to choose
    if device.type == "cuda":
        gpus = [GpuMemory(gpu, settings.memory_gib) for gpu in devices if gpu.type == "cuda"]
        sizes = WeightSizes(
            text_encoder=weight_bytes(empty_text_encoder(folder / "text_encoder"), dtype),
            dequantised=len(stored) * weight_bytes(empty_transformer(folder / "transformer"), dtype),
            stored=stored,
            loras=loras + (0 if models.loras is None else settings.lora_cache_bytes),
        )
        free = min(gpu.free_bytes() for gpu in gpus)
        plan = choose_plan(sizes, free=free, placements=placements, text_encoder=settings.text_encoder)
    if plan.text_encoder != "freed":
        # These files are as large as an expert's and are loaded last, so that the disk reads them
        # while the transformers are built.
        read_ahead(find_files(models.text_encoder_weights or folder / "text_encoder"))
    return EngineAssembler(settings=settings, models=models, folder=folder, dtype=dtype, devices=devices, gpus=gpus, plan=plan)


@dataclass(frozen=True, kw_only=True)
class EngineAssembler:
    """Loads the models that all requests share, and assembles an engine from them and its modes."""

    settings: VideoSettings
    models: VideoModels
    folder: Path
    dtype: torch.dtype
    devices: Sequence[torch.device]
    gpus: Sequence[GpuMemory]
    plan: Plan

    @property
    def device(self) -> torch.device:
        """The device of everything that is not on several."""
        return self.devices[0]

    def assemble(self, *, text_mode: Mode | None, image_mode: Mode | None, refusal: str) -> WanEngine:
        """Return a warmed-up engine; ``refusal`` is the error's detail for a mode that is None."""
        tokenizer = load_tokenizer(self.folder)
        vae, *vae_twins = (self._load_vae(device) for device in self.devices)
        transformers = _transformers_of(text_mode, image_mode)
        encoder, offloader = self._place_weights(transformers)
        engine = WanEngine(
            prompts=PromptEmbedder(tokenizer, encoder, self.settings.prompt_cache_bytes),
            vae=vae,
            vae_twins=vae_twins,
            text_mode=text_mode,
            image_mode=image_mode,
            refusal=refusal,
            accelerations=self._acceleration_options(transformers),
            loras=LoraShelf(
                None if self.models.loras is None else LoraFolder(self.models.loras),
                max_loras=self.settings.max_loras,
                max_bytes=self.settings.lora_cache_bytes,
                dtype=self.dtype,
            ),
            batch_guidance=self.settings.batch_guidance,
            gpus=self.gpus,
            offloader=offloader,
            takes_last_image=self.models.last_image,
            plan=self._describe_plan(),
        )
        for size in self.settings.warm_up:
            engine.warm_up(size.width, size.height, size.num_frames)
        return engine

    def _load_vae(self, device: torch.device) -> Any:
        dtype = pick_dtype(self.settings.vae_dtype, device)
        vae = load_vae(self.folder / "vae", dtype, device=device, weights=self.models.vae_weights)
        if device.type == "cuda":
            install_fast_modules(vae, pick_operations(self.settings))
        return vae

    def _describe_plan(self) -> str:
        if self.device.type != "cuda":
            return str(self.plan)
        attention = describe_attention(self.settings, torch.cuda.get_device_capability(self.device), self.dtype)
        return f"{self.plan}; {attention}"

    def _place_weights(self, transformers: list[Any]) -> tuple[TextEncoder, WeightOffloader | None]:
        offloaded = transformers if self.plan.transformers == "offloaded" else []
        if self.plan.text_encoder == "offloaded":
            model = self._load_text_encoder(torch.device("cpu"))
            shared = WeightOffloader([*offloaded, model], self.device)
            return TextEncoder(lambda: model, self.device, offloader=shared), shared
        offloader = WeightOffloader(offloaded, self.device) if offloaded else None
        freed = self.plan.text_encoder == "freed"
        return TextEncoder(lambda: self._load_text_encoder(self.device), self.device, freed=freed), offloader

    def _load_text_encoder(self, device: torch.device) -> Any:
        return load_text_encoder(
            self.folder / "text_encoder", self.dtype, device=device, weights=self.models.text_encoder_weights
        )

    def _acceleration_options(self, transformers: list[Any]) -> AccelerationOptions:
        options = AccelerationOptions(cache_threshold=self.settings.cache_threshold)
        if self.device.type != "cuda" or torch.cuda.get_device_capability(self.device) < CAPABILITY:
            return options
        if not all(pays(transformer.config) for transformer in transformers):
            return replace(options, fp8_refusal="gains less than `cache` on a model as narrow as this one, and loses more")
        return replace(options, fp8_operations=pick_operations(self.settings))


def _transformers_of(*modes: Mode | None) -> list[Any]:
    """Return the transformers of all modes and of their distilled versions."""
    versions = [version for mode in modes if mode is not None for version in (mode, mode.distilled)]
    return [model for version in versions if version is not None for model in version.transformers.values()]


def weight_bytes(model: torch.nn.Module, dtype: torch.dtype) -> int:
    """Return the bytes of the weights of ``model`` in ``dtype``."""
    return sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
