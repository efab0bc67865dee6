"""Chooses the acceleration that a request asks for, among those that the model offers."""

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import torch

from deployments.errors import AccelerationNotSupported
from deployments.video.acceleration.fp8 import Fp8, fp8_bytes, has_plain_layers
from deployments.video.acceleration.step_cache import StepCache
from deployments.video.sampling.guidance import Branch, guided_steps
from deployments.wire import VideoRequest


class Accelerator(Protocol):
    """Makes the denoising of one request faster. It keeps state, so each request has its own."""

    def view(self, transformer: Any, branch: Branch) -> Any:
        """Return what to call instead of ``transformer``; it shares the weights."""

    def velocity(self, latents: torch.Tensor, phase: Hashable, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return a step's velocity, from ``compute`` or without it; see ``denoise``."""

    def describe(self) -> str:
        """Return what was done, as the header `X-Acceleration` states it."""


@dataclass(frozen=True, kw_only=True)
class AccelerationOptions:
    """The accelerations that a model offers, apart from a distilled version (see ``Mode``)."""

    cache_threshold: float | None = None
    """The threshold of the step cache; None if the cache is not offered."""
    fp8_operations: ModuleType | None = None
    """The module of operations that quantise for fp8; None if fp8 is not offered."""
    fp8_refusal: str = "needs a GPU with fp8 arithmetic (Ada, Hopper or newer), which this model does not have"
    """Why fp8 is not offered."""

    def create(self, request: VideoRequest, transformers: Collection[Any]) -> Accelerator | None:
        """Return the accelerator that ``request`` asks for, or None for an exact video.

        ``transformers`` are those that the request runs. Raises ``AccelerationNotSupported`` if the
        model does not offer the acceleration.
        """
        if request.acceleration == "cache":
            if self.cache_threshold is None:
                raise not_supported("this model is not set up for `cache`")
            return StepCache(self.cache_threshold, request.denoise_steps, request.cache_every)
        if request.acceleration == "fp8":
            if self.fp8_operations is None:
                raise not_supported(f"`fp8` {self.fp8_refusal}")
            if not all(has_plain_layers(transformer) for transformer in transformers):
                raise not_supported("`fp8` needs weights that are not quantised, but this model keeps its weights quantised")
            return Fp8(self.fp8_operations)
        return None


def extra_bytes(request: VideoRequest, config: Any) -> int:
    """Return the bytes that ``request`` needs beyond an exact video.

    ``config`` is the transformer's.
    """
    if request.acceleration == "fp8":
        return fp8_bytes(config, request)
    return 0


def describe(request: VideoRequest, accelerator: Accelerator | None) -> str:
    """Return what was done, as the header `X-Acceleration` states it; empty for an exact video."""
    if request.acceleration == "distilled":
        return f"distilled; steps={request.denoise_steps}"
    parts = [] if accelerator is None else [accelerator.describe()]
    if request.guidance_until < 1 and request.cfg > 1:
        guided = guided_steps(request.guidance_until, request.denoise_steps)
        parts.append(f"guidance_until={request.guidance_until:g}; guided={guided}/{request.denoise_steps}")
    return "; ".join(parts)


def not_supported(reason: str) -> AccelerationNotSupported:
    """Return the error for an acceleration that the model does not offer."""
    return AccelerationNotSupported("acceleration", f"{reason}; leave `acceleration` out or send `none`")
