"""Which attention runs: the setting decides, then the GPU; cuDNN's never gets float32."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Literal

import pytest
import torch
from pydantic import ValidationError

from deployments.errors import CheckpointRefused
from deployments.settings import VideoSettings
from deployments.video.kernels import attention
from deployments.video.kernels.attention import (
    Attention,
    cudnn_attention,
    describe_attention,
    hopper_attention,
    native_attention,
    pick_attention,
)


@pytest.fixture(autouse=True)
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide FlashAttention-3 where it is installed."""
    monkeypatch.setitem(sys.modules, attention.FLASH_PACKAGE, None)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Size, ...]]:
    """Install a package that computes what FlashAttention-3 does, and return the shapes it gets."""
    shapes: list[tuple[torch.Size, ...]] = []

    def fwd(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, softmax_scale: float, num_splits: int
    ) -> tuple[torch.Tensor]:
        assert softmax_scale == query.shape[3] ** -0.5
        assert num_splits == 1, "more would make the result depend on the GPU's load"
        shapes.append((query.shape, key.shape, value.shape))
        return (native_attention(*(part.transpose(1, 2) for part in (query, key, value))).transpose(1, 2),)

    package = ModuleType(attention.FLASH_PACKAGE)
    package.fa3_fwd_cuda = SimpleNamespace(fwd=fwd)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, attention.FLASH_PACKAGE, package)
    return shapes


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
    with pytest.raises(ValidationError, match="attention: flash"):
        VideoSettings(attention="flash", dtype="float32")
    with pytest.raises(ValidationError, match="attention: cudnn"):
        VideoSettings(attention="cudnn", dtype="float32")


@pytest.mark.usefixtures("flash")
@pytest.mark.parametrize(
    ("setting", "capability", "picked", "described"),
    [
        ("auto", (9, 0), hopper_attention, "FlashAttention-3"),
        ("flash", (9, 0), hopper_attention, "FlashAttention-3"),
        ("cudnn", (9, 0), cudnn_attention, "cuDNN's attention"),
        ("auto", (10, 0), cudnn_attention, "cuDNN's attention"),
        ("auto", (8, 9), native_attention, "PyTorch's attention"),
    ],
)
def test_flash_attention_is_picked_on_hopper_if_its_package_is_there(
    setting: Literal["auto", "flash", "cudnn"], capability: tuple[int, int], picked: object, described: str
) -> None:
    settings = VideoSettings(attention=setting)
    assert pick_attention(settings, capability, torch.bfloat16) is picked
    assert describe_attention(settings, capability, torch.bfloat16) == described


def test_without_the_package_cudnn_runs_and_the_description_says_what_to_install() -> None:
    described = describe_attention(VideoSettings(), (9, 0), torch.bfloat16)
    assert described == "cuDNN's attention (a working `fa3-fwd` would be faster)"
    with pytest.raises(CheckpointRefused, match="needs a Hopper GPU and the package `fa3-fwd`"):
        pick_attention(VideoSettings(attention="flash"), (9, 0), torch.bfloat16)


def test_a_package_that_cannot_be_imported_is_logged_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"{attention.FLASH_PACKAGE}.py").write_text("raise OSError('libcudart.so.99: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, attention.FLASH_PACKAGE)
    assert pick_attention(VideoSettings(), (9, 0), torch.bfloat16) is cudnn_attention
    assert "libcudart.so.99" in caplog.text


def test_flash_attention_runs_on_video_tokens_and_texts_and_cudnns_elsewhere(
    flash: list[tuple[torch.Size, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, text, other = torch.randn(1, 2, 1100, 128), torch.randn(1, 2, 512, 128), torch.randn(1, 2, 1100, 64)
    few = torch.randn(1, 2, 257, 128).bfloat16()
    called = []

    def cudnn(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        called.append(key.shape)
        return native_attention(query, key, value)

    monkeypatch.setattr(attention, "cudnn_attention", cudnn)
    run: Attention = hopper_attention
    half = queries.bfloat16()
    assert torch.equal(run(half, half, half), native_attention(half, half, half))
    assert flash == [(torch.Size((1, 1100, 2, 128)),) * 3], "the package takes heads after tokens"
    run(half, text.bfloat16(), text.bfloat16())
    assert flash[1] == (torch.Size((1, 1100, 2, 128)), *[torch.Size((1, 512, 2, 128))] * 2)
    run(half, few, few)
    run(other.bfloat16(), other.bfloat16(), other.bfloat16())
    run(queries, queries, queries)
    assert called == [few.shape, other.shape, queries.shape]
    assert len(flash) == 2
