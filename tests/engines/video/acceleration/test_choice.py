"""The choice of an accelerator, and how it is described."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.errors import AccelerationNotSupported
from deployments.video.acceleration.choice import AccelerationOptions, describe, extra_bytes
from deployments.video.acceleration.step_cache import StepCache
from deployments.wire import Acceleration, VideoRequest

CONFIG: Any = SimpleNamespace(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960)


def test_an_exact_or_distilled_video_needs_no_accelerator(small: VideoRequest) -> None:
    options = AccelerationOptions(cache_threshold=0.1)
    assert options.create(small, []) is None
    assert options.create(replace(small, acceleration="distilled"), []) is None


def test_every_request_has_a_cache_of_its_own(small: VideoRequest) -> None:
    options, request = AccelerationOptions(cache_threshold=0.1), replace(small, acceleration="cache")
    one, other = options.create(request, []), options.create(request, [])
    assert isinstance(one, StepCache)
    assert one is not other


def test_what_a_model_does_not_offer_is_refused(small: VideoRequest) -> None:
    refusals: dict[Acceleration, str] = {"cache": "not set up for `cache`", "fp8": "needs a GPU with fp8 arithmetic"}
    for acceleration, message in refusals.items():
        with pytest.raises(AccelerationNotSupported, match=message) as refused:
            AccelerationOptions().create(replace(small, acceleration=acceleration), [])
        assert refused.value.field == "acceleration"
        assert refused.value.detail.endswith("leave `acceleration` out or send `none`")


def test_a_narrow_model_says_why_it_does_not_offer_fp8(small: VideoRequest) -> None:
    options = AccelerationOptions(cache_threshold=0.1, fp8_refusal="gains less than `cache`")
    with pytest.raises(AccelerationNotSupported, match="`fp8` gains less than `cache`; leave `acceleration` out"):
        options.create(replace(small, acceleration="fp8"), [])


def test_a_description_says_what_was_done(small: VideoRequest) -> None:
    assert describe(small, None) == ""
    assert describe(replace(small, steps=4, acceleration="distilled"), None) == "distilled; steps=4"
    assert describe(replace(small, acceleration="cache"), StepCache(0.1, 2)) == "cache; threshold=0.1; reused=0/0"
    gated = replace(small, steps=30, guidance_until=0.5)
    assert describe(gated, None) == "guidance_until=0.5; guided=15/30"
    assert describe(gated, StepCache(0.1, 2)) == "cache; threshold=0.1; reused=0/0; guidance_until=0.5; guided=15/30"
    assert describe(replace(gated, cfg=1.0), None) == ""


def test_only_accelerations_that_hold_weights_or_activations_need_more_memory(small: VideoRequest) -> None:
    fp8 = extra_bytes(replace(small, acceleration="fp8"), CONFIG)
    tokens, hidden = 2 * 64 * 64 // 256, 12 * 128
    assert fp8 == (2 * tokens + hidden) * 8960
    for acceleration in ("none", "cache", "distilled"):
        assert extra_bytes(replace(small, acceleration=acceleration), CONFIG) == 0
