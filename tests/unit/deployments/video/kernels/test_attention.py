"""The faster arithmetic is the same arithmetic."""

from typing import Literal

import pytest
import torch
from diffusers.models.activations import GELU
from pydantic import ValidationError

from deployments.settings import VideoSettings
from deployments.video.kernels.install import LinearGelu, pick_attention


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
def test_attention_is_picked_by_setting_then_by_card(
    wanted: Literal["auto", "cudnn", "native"], capability: tuple[int, int], picked: str
) -> None:
    assert pick_attention(VideoSettings(attention=wanted), capability, torch.bfloat16) == picked


def test_float32_is_never_given_to_cudnn() -> None:
    """Called by name it takes float32 without a word, and answers with what is no number."""
    assert pick_attention(VideoSettings(dtype="float32"), (9, 0), torch.float32) == "native"
    with pytest.raises(ValidationError, match="`attention: cudnn` knows no `dtype: float32`"):
        VideoSettings(attention="cudnn", dtype="float32")


@torch.no_grad()
def test_linear_and_activation_in_one_are_the_two() -> None:
    theirs = GELU(16, 64, approximate="tanh")
    x = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(1))
    # A CPU's epilogue is the exact activation, a GPU's the approximation; they differ by less than 1e-3.
    torch.testing.assert_close(LinearGelu(theirs)(x), theirs(x), rtol=0, atol=1e-3)
