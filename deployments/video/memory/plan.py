"""Chooses which weights stay on the GPU, and estimates what a request needs beside them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deployments.wire import VideoRequest

log = logging.getLogger(__name__)

GIB = 2**30
ACTIVATION_RESERVE = 10 * GIB
"""Bytes of GPU memory reserved for activations when a plan is chosen."""

TransformerPlacement = Literal["kept", "dequantised", "quantised", "offloaded"]
TextEncoderPlacement = Literal["kept", "offloaded", "freed"]


@dataclass(frozen=True, kw_only=True)
class WeightSizes:
    """Sizes of the models in bytes."""

    text_encoder: int
    dequantised: int
    """All transformers together, in the dtype that they compute in."""
    stored: tuple[int, ...]
    """Each transformer as it is stored."""
    loras: int = 0
    """All LoRAs together."""


@dataclass(frozen=True)
class Plan:
    """How the weights are kept.

    Offloaded weights stay in host memory until they are used; if several transformers are
    offloaded, one at a time is on the GPU.
    """

    transformers: TransformerPlacement
    text_encoder: TextEncoderPlacement

    def __str__(self) -> str:
        return f"transformers {self.transformers}, text encoder {self.text_encoder}"

    def resident_bytes(self, sizes: WeightSizes) -> int:
        """Return the bytes of weights on the GPU while a video is generated."""
        stored = max(sizes.stored) if self.transformers == "offloaded" else sum(sizes.stored)
        transformers = sizes.dequantised if self.transformers == "dequantised" else stored
        return transformers + sizes.loras + (sizes.text_encoder if self.text_encoder == "kept" else 0)

    def peak_bytes(self, sizes: WeightSizes) -> int:
        """Return the most bytes that are on the GPU at once.

        The peak is reached while a video is generated, or while a text encoder that is not kept
        encodes a prompt.
        """
        visiting = 0 if self.text_encoder == "kept" else sizes.text_encoder
        if self.transformers == "offloaded":  # the text encoder then replaces a transformer
            return max(self.resident_bytes(sizes) + ACTIVATION_RESERVE, visiting)
        return self.resident_bytes(sizes) + max(ACTIVATION_RESERVE, visiting)


def choose_plan(
    sizes: WeightSizes,
    *,
    free: int,
    placements: Sequence[TransformerPlacement],
    text_encoder: Literal["auto"] | TextEncoderPlacement,
) -> Plan:
    """Return the first plan that fits into ``free`` bytes, or else the last one.

    ``placements`` lists the transformers' placements, the fastest first; for each of them the text
    encoder is kept if it fits, and offloaded otherwise. A ``text_encoder`` other than ``auto`` is
    used as given. ``auto`` never frees it, because reading its files again takes the longest.
    """
    choices: tuple[TextEncoderPlacement, ...] = ("kept", "offloaded") if text_encoder == "auto" else (text_encoder,)
    plans = [Plan(placement, choice) for placement in placements for choice in choices]
    plan = next((plan for plan in plans if plan.peak_bytes(sizes) <= free), plans[-1])
    needed = plan.peak_bytes(sizes)
    log.log(
        logging.INFO if needed <= free else logging.WARNING,
        "weights: %s; they need %.1f GiB including activations, %.1f GiB are free",
        plan,
        needed / GIB,
        free / GIB,
    )
    return plan


def activation_bytes(config: Any, request: VideoRequest, *, batch_guidance: bool) -> int:
    """Return an upper bound of the bytes that ``request`` needs beside the weights.

    It is the larger of what a forward pass needs and what the VAE needs. ``config`` is the
    transformer's. The block's factors count the tensors that are alive at once in
    ``kernels.block``; the VAE's are measured (832x480 to 1280x720, 33 and 81 frames).
    `benchmarks.wan memory` prints measured peaks beside this estimate.
    """
    pixels, groups = request.width * request.height, 1 + (request.num_frames - 1) // 4
    tokens, width = groups * pixels // 256, config.num_attention_heads * config.attention_head_dim
    batch = 2 if batch_guidance and request.cfg > 1 else 1
    has_image = request.takes_image
    controls = len(getattr(config, "vace_layers", None) or ()) + 2 if has_image else 0
    block = tokens * (2 * (7 + controls) * width + 2 * config.ffn_dim + 8 * config.attention_head_dim) * batch
    decoding = 12_400 + 3 * request.num_frames
    encoding = 9_600 + 36 * request.num_frames if has_image or request.source is not None else 0
    vae = pixels * max(decoding, encoding)
    return int(max(block, vae)) + GIB // 2
