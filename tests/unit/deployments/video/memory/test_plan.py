"""Memory plans: the fastest one that fits is chosen, and larger videos need more."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.video.memory.plan import (
    ACTIVATION_RESERVE,
    GIB,
    Plan,
    TransformerPlacement,
    WeightSizes,
    activation_bytes,
    choose_plan,
)
from deployments.wire import Image, VideoRequest

A14B = WeightSizes(text_encoder=11 * GIB, dequantised=53 * GIB, stored=(10 * GIB, 10 * GIB))
PLACEMENTS: tuple[TransformerPlacement, ...] = ("dequantised", "quantised", "offloaded")


@pytest.mark.parametrize(
    ("free", "transformers", "text_encoder"),
    [
        (140, "dequantised", "kept"),
        (74, "dequantised", "kept"),
        (73, "dequantised", "offloaded"),
        (63, "quantised", "kept"),
        (40, "quantised", "offloaded"),
        (30, "offloaded", "offloaded"),
        # This is the smallest plan; requests that do not fit are refused one by one.
        (5, "offloaded", "offloaded"),
    ],
)
def test_the_fastest_plan_that_fits_is_chosen(free: int, transformers: str, text_encoder: str) -> None:
    plan = choose_plan(A14B, free=free * GIB, placements=PLACEMENTS, text_encoder="auto")
    assert (plan.transformers, plan.text_encoder) == (transformers, text_encoder)
    if free > 5:
        assert plan.peak_bytes(A14B) <= free * GIB


def test_settings_take_precedence_over_free_memory() -> None:
    plan = choose_plan(A14B, free=10 * GIB, placements=("dequantised",), text_encoder="kept")
    assert plan == Plan("dequantised", "kept")
    plan = choose_plan(A14B, free=140 * GIB, placements=PLACEMENTS, text_encoder="freed")
    assert plan == Plan("dequantised", "freed")
    plan = choose_plan(A14B, free=140 * GIB, placements=("offloaded",), text_encoder="auto")
    assert plan == Plan("offloaded", "kept")


def test_an_offloaded_text_encoder_has_room_while_it_runs() -> None:
    sizes = WeightSizes(text_encoder=4 * ACTIVATION_RESERVE, dequantised=ACTIVATION_RESERVE, stored=(ACTIVATION_RESERVE,))
    assert Plan("kept", "offloaded").peak_bytes(sizes) == 5 * ACTIVATION_RESERVE


def test_loras_count() -> None:
    free = 32 * GIB + ACTIVATION_RESERVE
    chosen = [
        choose_plan(
            WeightSizes(text_encoder=2 * GIB, dequantised=30 * GIB, stored=(5 * GIB, 5 * GIB), loras=loras),
            free=free,
            placements=("dequantised", "quantised"),
            text_encoder="kept",
        ).transformers
        for loras in (0, 1)
    ]
    assert chosen == ["dequantised", "quantised"]


def test_a_plan_describes_itself() -> None:
    assert str(Plan("quantised", "offloaded")) == "transformers quantised, text encoder offloaded"


VACE: Any = SimpleNamespace(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, vace_layers=[*range(0, 30, 2)])


def needed(width: int, height: int, frames: int, *, image: Image | None = None, batched: bool = False) -> int:
    request = VideoRequest(
        prompt="", negative_prompt="", width=width, height=height, num_frames=frames, steps=2, cfg=5.0, seed=0, image=image
    )
    return activation_bytes(VACE, request, batch_guidance=batched)


def test_more_pixels_frames_and_passes_need_more() -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    base = needed(832, 480, 33)
    assert base < needed(1280, 720, 33) < needed(1280, 720, 81) < 40 * GIB
    assert base <= needed(832, 480, 33, image=image)
    assert needed(832, 480, 161) < needed(832, 480, 161, image=image), "encoding keeps more of each frame than decoding"
    assert base <= needed(832, 480, 33, batched=True)
