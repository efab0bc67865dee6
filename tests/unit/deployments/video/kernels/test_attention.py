"""Which attention runs: the setting decides, then the GPU; cuDNN's never gets float32."""

from typing import Literal

import pytest
import torch
from pydantic import ValidationError

from deployments.settings import VideoSettings
from deployments.video.kernels.attention import cudnn_attention, native_attention, pick_attention


@pytest.mark.parametrize(
    ("setting", "capability", "picked"),
    [
        ("auto", (9, 0), cudnn_attention),
        ("auto", (10, 0), cudnn_attention),
        ("auto", (8, 0), native_attention),
        ("auto", (8, 9), native_attention),
        ("cudnn", (8, 9), cudnn_attention),
        ("native", (9, 0), native_attention),
    ],
)
def test_the_setting_decides_and_then_the_gpu(
    setting: Literal["auto", "cudnn", "native"], capability: tuple[int, int], picked: object
) -> None:
    assert pick_attention(VideoSettings(attention=setting), capability, torch.bfloat16) is picked


def test_float32_never_runs_cudnns() -> None:
    """Called by name, cuDNN's attention accepts float32 and returns NaN."""
    assert pick_attention(VideoSettings(dtype="float32"), (9, 0), torch.float32) is native_attention
    with pytest.raises(ValidationError, match="attention: cudnn"):
        VideoSettings(attention="cudnn", dtype="float32")
