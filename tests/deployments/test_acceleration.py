"""The faster arithmetic is the same arithmetic."""

import pytest
import torch
from diffusers.models.activations import GELU

from deployments.settings import VideoSettings
from deployments.video.acceleration import LinearGelu, pick_attention


@pytest.mark.parametrize(
    ("wanted", "capability", "picked"),
    [
        ("auto", (9, 0), "cudnn"),
        ("auto", (10, 0), "cudnn"),
        ("auto", (8, 0), "native"),
        ("auto", (8, 9), "native"),
        ("cudnn", (8, 9), "cudnn"),
        ("native", (9, 0), "native"),
    ],
)
def test_attention_is_picked_by_setting_then_by_card(wanted: str, capability: tuple[int, int], picked: str) -> None:
    assert pick_attention(VideoSettings(attention=wanted), capability) == picked  # type: ignore[arg-type]


@torch.no_grad()
def test_linear_and_activation_in_one_are_the_two() -> None:
    theirs = GELU(16, 64, approximate="tanh")
    x = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(1))
    # A CPU's epilogue is the exact activation, a GPU's the approximation; they differ by less than 1e-3.
    torch.testing.assert_close(LinearGelu(theirs)(x), theirs(x), rtol=0, atol=1e-3)
