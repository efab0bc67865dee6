"""Lists the LoRAs that callers may choose from, for `GET /loras`."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from deployments.lora_folder import LoraFileBroken, LoraFolder, LoraFolderUnavailable
from serve.config import AppConfig
from serve.model_files import transformer_counts, video_model_files
from serve.models import VIDEO_MODELS
from serve.problems import unavailable

logger = logging.getLogger("ray.serve")

KEPT_S = 10.0
"""Seconds for which a list is good. It is made by one thread at a time, however many ask."""


class LoraList:
    """The LoRAs of each video model.

    One that cannot be used is left out. The log says why, once until that changes.
    """

    def __init__(self, config: AppConfig) -> None:
        self._config = config
        self._folders = {name: LoraFolder(url) for name, url in lora_folders(config).items() if url is not None}
        self._lock = asyncio.Lock()
        self._made: Mapping[str, list[dict[str, Any]]] = {}
        self._made_at = float("-inf")
        self._broken: frozenset[str] = frozenset()

    async def all(self) -> Mapping[str, list[dict[str, Any]]]:
        """Return what there is to know of each LoRA, by the models' API names."""
        async with self._lock:
            if time.monotonic() - self._made_at > KEPT_S:
                try:
                    self._made = await asyncio.to_thread(self._read)
                except LoraFolderUnavailable:
                    raise unavailable("the folder of LoRAs cannot be read now", retry_after_s=30) from None
                self._made_at = time.monotonic()
            return self._made

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        broken: set[str] = set()
        counts = {model.name: transformer_counts(files) for model, files in video_model_files(self._config).items()}
        made = {
            model.name: _describe(self._folders.get(model.name), broken, has_two=2 in counts[model.name])
            for model in VIDEO_MODELS
        }
        for sentence in sorted(broken - self._broken):
            logger.warning("a LoRA is not listed: %s", sentence)
        self._broken = frozenset(broken)
        return made


def lora_folders(config: AppConfig) -> dict[str, str | None]:
    """Return the folder of each video model's LoRAs by its API name, or None where it has none."""
    return {model.name: files.loras for model, files in video_model_files(config).items()}


def _describe(folder: LoraFolder | None, broken: set[str], *, has_two: bool) -> list[dict[str, Any]]:
    """Return the LoRAs of a folder that can be used; ``broken`` gets a sentence on each other.

    ``has_two`` says whether any of the model's checkpoints may have two experts.
    """
    if folder is None:
        return []
    described: list[dict[str, Any]] = []
    for entry in sorted(folder.entries().values(), key=lambda entry: entry.name):
        if not has_two and "all" not in entry.files:
            broken.add(f"{folder.url}: {entry.name} is for a model of two experts, and this model has one transformer")
            continue
        try:
            words = folder.trigger_words(entry)
        except LoraFileBroken as error:
            broken.add(str(error))
            continue
        experts = sorted(entry.files.keys() - {"all"})
        size = sum(file.nbytes for file in entry.files.values())
        described.append({"name": entry.name, "trigger_words": words, "experts": experts, "bytes": size})
    return described
