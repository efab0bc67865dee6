"""Decides where each model goes before anything is loaded, and puts the engine together."""

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

import torch

from deployments.settings import VideoSettings
from deployments.video.kernels.install import accelerate_vae, pick_operations
from deployments.video.checkpoints.folder import (
    empty_text_encoder,
    empty_transformer,
    load_text_encoder,
    load_tokenizer,
    load_vae,
)
from deployments.video.memory.device import pick_dtype
from deployments.video.acceleration.fp8 import CAPABILITY
from deployments.video.engine import Path, WanEngine
from deployments.video.memory.plan import Card, Plan, Transformers, Weights, choose
from deployments.video.sampling.prompts import Prompts
from deployments.video.checkpoints.read_ahead import read_ahead
from deployments.video.memory.offload import Residence
from deployments.video.acceleration.choice import Shortcuts
from deployments.video.sampling.text_encoder import TextEncoder


class Placing:
    """``folder`` holds text encoder, tokenizer and VAE.

    ``stored`` are the bytes of the transformers as stored, ``ways`` how they may be kept, the fastest first, ``loras`` the bytes of what
    is kept beside them; all of one device. ``second``: another, which has the same or less.
    """

    def __init__(
        self,
        settings: VideoSettings,
        folder: FilePath,
        dtype: torch.dtype,
        device: torch.device,
        stored: tuple[int, ...],
        ways: Sequence[Transformers],
        loras: int = 0,
        second: torch.device | None = None,
    ) -> None:
        self._settings, self._folder, self._dtype, self._device = settings, folder, dtype, device
        self._cards: list[Card] = []
        self.plan = Plan("kept", "kept")
        """Of a CPU: there is but one memory."""
        if device.type == "cuda":
            cards = [device] if second is None else [device, second]
            self._cards = [Card(card, settings.memory_gib) for card in cards if card.type == "cuda"]
            plain = len(stored) * weight_bytes(empty_transformer(folder / "transformer"), dtype)
            weights = Weights(weight_bytes(empty_text_encoder(folder / "text_encoder"), dtype), plain, stored, loras)
            self.plan = choose(weights, min(card.free() for card in self._cards), ways, settings.text_encoder)
        if self.plan.text != "freed":
            # The largest file beside an expert, and loaded last: the disk reads it while the transformers are made.
            read_ahead(sorted((folder / "text_encoder").glob("*.safetensors")))

    def engine(self, text: Path | None, image: Path | None, no_image: str) -> WanEngine:
        """Loads text encoder and VAE, and makes a video of each size that the settings name."""
        settings, device, plan = self._settings, self._device, self.plan
        tokenizer = load_tokenizer(self._folder)
        vae = load_vae(self._folder / "vae", pick_dtype(settings.vae_dtype, device), device)
        accelerate_vae(vae, settings, device)
        paths = [path for way in (text, image) if way is not None for path in (way, way.distilled) if path is not None]
        transformers = [model for path in paths for model in path.transformers.values()]
        waiting = transformers if plan.transformers == "offloaded" else []
        if plan.text == "offloaded":
            model = load_text_encoder(self._folder / "text_encoder", self._dtype, torch.device("cpu"))
            residence: Residence | None = Residence([*waiting, model], device)
            encoder = TextEncoder(lambda: model, device, residence=residence)
        else:
            residence = Residence(waiting, device) if waiting else None
            encoder = TextEncoder(self._load_text_encoder, device, freed=plan.text == "freed")
        engine = WanEngine(
            Prompts(tokenizer, encoder, settings.prompt_cache_bytes),
            *(vae, text, image, no_image),
            batch_guidance=settings.batch_guidance,
            shortcuts=self._shortcuts(),
            cards=self._cards,
            residence=residence,
            plan=str(plan),
        )
        for size in settings.warm_up:
            engine.warm(size.width, size.height, size.num_frames)
        return engine

    def _shortcuts(self) -> Shortcuts:
        fp8 = self._device.type == "cuda" and torch.cuda.get_device_capability(self._device) >= CAPABILITY
        return Shortcuts(self._settings.cache_threshold, pick_operations(self._settings) if fp8 else None)

    def _load_text_encoder(self) -> Any:
        return load_text_encoder(self._folder / "text_encoder", self._dtype, self._device)


def weight_bytes(model: torch.nn.Module, dtype: torch.dtype) -> int:
    """Of ``model``'s weights in ``dtype``."""
    return sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
