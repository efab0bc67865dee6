"""Fast blocks in a transformer that is loaded from a file."""

import os
from pathlib import Path

import pytest
import torch

from deployments.settings import VideoSettings
from deployments.video.checkpoints.experts import dequantise
from deployments.video.checkpoints.gguf import load_gguf
from deployments.video.kernels import reference
from deployments.video.kernels.install import install_fast_blocks, pick_operations
from deployments.video.kernels.linear_gelu import LinearGelu
from tests.engines.random_models import RandomCheckpoints

GPU = torch.device("cuda")


def load(random_models: RandomCheckpoints) -> torch.nn.Module:
    model = load_gguf(
        random_models.high_noise, folder=random_models.a14b, part="transformer", dtype=torch.float32, device=torch.device("cpu")
    )
    assert isinstance(model, torch.nn.Module)
    return model


def test_fast_blocks_keep_quantised_layers_and_the_result(
    random_models: RandomCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = load(random_models)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    settings = VideoSettings(compile=False)
    inputs = (
        torch.randn(1, 36, 2, 8, 8, generator=torch.Generator().manual_seed(1)),
        torch.tensor([500.0]),
        torch.zeros(1, 512, 256),
    )
    with torch.no_grad():
        before = stored(*inputs, return_dict=False)[0]
        quantised = load(random_models)
        install_fast_blocks(quantised, settings, GPU)
        assert not any(isinstance(module, LinearGelu) for module in quantised.modules())
        torch.testing.assert_close(quantised(*inputs, return_dict=False)[0], before, rtol=1e-4, atol=1e-4)
        dequantise(stored)
        install_fast_blocks(stored, settings, GPU)
        assert sum(isinstance(module, LinearGelu) for module in stored.modules()) == 4
        # A CPU's epilogue is the exact activation, a GPU's the published approximation.
        torch.testing.assert_close(stored(*inputs, return_dict=False)[0], before, rtol=1e-2, atol=1e-2)


def test_the_setting_picks_the_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = pytest.importorskip("deployments.video.kernels.fused", reason="this PyTorch comes without Triton")
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    assert pick_operations(VideoSettings(compile=False)) is reference
    assert pick_operations(VideoSettings(compile_cache=tmp_path)) is fused
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path)
