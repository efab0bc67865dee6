"""The ways to a video that are faster and not exact, as a caller may ask for them (`acceleration`); what a model has of them."""

from collections.abc import Collection
from types import ModuleType
from typing import Any

from deployments.errors import AccelerationNotSupported
from deployments.video.acceleration.block_cache import BlockCache, cache_bytes
from deployments.video.sampling.denoise import Shortcut
from deployments.video.acceleration.fp8 import Fp8, fp8_bytes, has_plain_layers
from deployments.wire import VideoRequest


class Shortcuts:
    """``cache_threshold``: of the first-block cache; ``fp8``: the operations to quantise by. None: not offered."""

    def __init__(self, cache_threshold: float | None = None, fp8: ModuleType | None = None) -> None:
        self._cache_threshold = cache_threshold
        self._fp8 = fp8

    def choose(self, request: VideoRequest, transformers: Collection[Any]) -> Shortcut | None:
        """What the request asks for, with a state of its own; raises AccelerationNotSupported if there is no such thing here."""
        if request.acceleration == "cache":
            if self._cache_threshold is None:
                raise not_supported("this model is not set up for `cache`")
            return BlockCache(self._cache_threshold)
        if request.acceleration == "fp8":
            if self._fp8 is None:
                raise not_supported(
                    "`fp8` needs a GPU that has such arithmetic (Ada, Hopper or newer); this model runs on none"
                )
            if not all(has_plain_layers(transformer) for transformer in transformers):
                raise not_supported("this model's weights are kept quantised, which `fp8` cannot be computed from")
            return Fp8(self._fp8)
        return None

    @staticmethod
    def wants(request: VideoRequest, config: Any) -> int:
        """Bytes besides those of an exact video; ``config`` is the transformer's."""
        count = {"cache": cache_bytes, "fp8": fp8_bytes}.get(request.acceleration)
        return 0 if count is None else count(config, request.width, request.height, request.num_frames)


def describe(request: VideoRequest, shortcut: Shortcut | None) -> str:
    """What was done, as `X-Acceleration` says it; empty: nothing."""
    if request.acceleration == "distilled":  # another model, not another way to run one
        return f"distilled; steps={request.steps}"
    return "" if shortcut is None else str(shortcut)


def not_supported(why: str) -> AccelerationNotSupported:
    """The error for what a model is not set up for."""
    return AccelerationNotSupported("acceleration", f"{why}; leave it out, or send `none`")
