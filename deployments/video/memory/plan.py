"""What of the models stays on a card, chosen by the memory that is free when a replica starts; and what a video will want beside them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from deployments.wire import VideoRequest

log = logging.getLogger(__name__)

GIB = 2**30
ROOM = 10 * GIB
"""For the work on a video: what is left free by choice."""
Transformers = Literal["kept", "dequantised", "quantised", "offloaded"]
Text = Literal["kept", "offloaded", "freed"]


class Card:
    """The memory of one GPU that this process may use; ``limit_gib`` caps it."""

    def __init__(self, device: torch.device, limit_gib: float | None) -> None:
        self.device = device
        self.name = torch.cuda.get_device_name(device)
        self._total = torch.cuda.mem_get_info(device)[1]
        self._limit = self._total
        if limit_gib is not None:
            self._limit = min(self._total, int(limit_gib * GIB))
            # By its number: that call takes no `cuda` for the current one.
            number = torch.cuda.current_device() if device.index is None else device.index
            torch.cuda.set_per_process_memory_fraction(self._limit / self._total, number)

    def free(self) -> int:
        """Bytes that this process may still fill."""
        allocated, reserved = torch.cuda.memory_allocated(self.device), torch.cuda.memory_reserved(self.device)
        return min(torch.cuda.mem_get_info(self.device)[0] + reserved - allocated, self._limit - allocated)

    def __str__(self) -> str:
        used = torch.cuda.memory_allocated(self.device)
        return f"{self.name}, {used / GIB:.1f} of {self._limit / GIB:.1f} GiB"


@dataclass(frozen=True)
class Weights:
    """Bytes of the models: text encoder; all transformers in the type they compute in; each one as stored; all LoRAs."""

    text: int
    plain: int
    stored: tuple[int, ...]
    loras: int = 0


@dataclass(frozen=True)
class Plan:
    """How the weights are kept. ``offloaded``: in the host's memory until they are wanted, of several transformers one at a time."""

    transformers: Transformers
    text: Text

    def __str__(self) -> str:
        return f"transformers {self.transformers}, text encoder {self.text}"

    def wants(self, weights: Weights) -> int:
        """Bytes on the card while a video is made."""
        stored = max(weights.stored) if self.transformers == "offloaded" else sum(weights.stored)
        transformers = weights.plain if self.transformers == "dequantised" else stored
        return transformers + weights.loras + (weights.text if self.text == "kept" else 0)

    def peak(self, weights: Weights) -> int:
        """Bytes that must be there at once: with room for the work, or while a text encoder visits."""
        visiting = 0 if self.text == "kept" else weights.text
        if self.transformers == "offloaded":  # then they make way for each other
            return max(self.wants(weights) + ROOM, visiting)
        return self.wants(weights) + max(ROOM, visiting)


def choose(weights: Weights, free: int, ways: Sequence[Transformers], text: Literal["auto"] | Text) -> Plan:
    """The first of ``ways`` that fits into ``free`` bytes, the text encoder kept if it can be; else the last.

    ``text`` other than ``auto`` is taken as it is; by itself nothing is freed, for reading files again takes longest.
    """
    places: tuple[Text, ...] = ("kept", "offloaded") if text == "auto" else (text,)
    plans = [Plan(way, place) for way in ways for place in places]
    plan = next((plan for plan in plans if plan.peak(weights) <= free), plans[-1])
    level = logging.INFO if plan.peak(weights) <= free else logging.WARNING
    wanted = plan.peak(weights) / GIB
    log.log(level, "weights: %s; they want %.1f GiB with room for the work, %.1f GiB are free", plan, wanted, free / GIB)
    return plan


def work_bytes(config: Any, request: VideoRequest, *, batch_guidance: bool) -> int:
    """Bytes that a video wants beside the weights, from above: the larger of a forward pass and the VAE's work.

    ``config`` is the transformer's. The block's factors are counted from what is alive at once in `fast_block`, the VAE's are measured
    (832x480 to 1280x720, 33 and 81 frames); `benchmarks.wan memory` prints the peaks beside what was asked for.
    """
    pixels, groups = request.width * request.height, 1 + (request.num_frames - 1) // 4
    tokens, width = groups * pixels // 256, config.num_attention_heads * config.attention_head_dim
    batch = 2 if batch_guidance and request.cfg > 1 else 1
    image = request.image is not None
    controls = len(getattr(config, "vace_layers", None) or ()) + 2 if image else 0
    block = tokens * (2 * (7 + controls) * width + 2 * config.ffn_dim + 8 * config.attention_head_dim) * batch
    decoding, encoding = 12_400 + 3 * request.num_frames, 9_600 + 36 * request.num_frames if image else 0
    vae = pixels * max(decoding, encoding)
    return int(max(block, vae)) + GIB // 2
