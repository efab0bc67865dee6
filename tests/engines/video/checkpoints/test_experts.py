"""The experts' weights, quantised and not."""

from pathlib import Path

import gguf
import pytest
import torch
from diffusers.quantizers.gguf.utils import GGUFParameter

from deployments.settings import VideoSettings
from deployments.video.kernels.install import LinearGelu, accelerate
from deployments.video.checkpoints.experts import dequantise
from deployments.video.checkpoints.gguf import load_gguf
from tests.engines.random_models import RandomCheckpoints

CARD = torch.device("cuda")
LAYER = "blocks.0.attn1.to_q.weight"


@pytest.fixture
def stored(random_models: RandomCheckpoints) -> torch.nn.Module:
    return load(random_models)


def load(random_models: RandomCheckpoints) -> torch.nn.Module:
    model = load_gguf(random_models.high_noise, random_models.a14b, "transformer", torch.float32, torch.device("cpu"))
    assert isinstance(model, torch.nn.Module)
    return model


def is_stored(model: torch.nn.Module) -> bool:
    return isinstance(model.get_parameter(LAYER), GGUFParameter)


def expected(path: Path) -> torch.Tensor:
    [tensor] = [t for t in gguf.GGUFReader(path).tensors if t.name == "blocks.0.self_attn.q.weight"]
    return torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type))


def test_dequantised_experts_are_what_the_file_says_and_plain_ones_stay(
    stored: torch.nn.Module, random_models: RandomCheckpoints
) -> None:
    inputs = (
        torch.randn(1, 36, 2, 8, 8, generator=torch.Generator().manual_seed(1)),
        torch.tensor([500.0]),
        torch.zeros(1, 512, 256),
    )
    with torch.no_grad():
        before = stored(*inputs, return_dict=False)[0]
    assert is_stored(stored)
    plain = torch.nn.Linear(2, 2)
    kept = plain.weight.clone()
    dequantise(plain)
    dequantise(stored)
    assert torch.equal(plain.weight, kept)
    assert not is_stored(stored)
    weight = stored.get_parameter(LAYER)
    torch.testing.assert_close(weight.float(), expected(random_models.high_noise), rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(stored(*inputs, return_dict=False)[0], before, rtol=1e-4, atol=1e-4)


def test_acceleration_leaves_what_is_quantised_and_changes_no_result(
    stored: torch.nn.Module, random_models: RandomCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        accelerate(quantised, settings, CARD)
        assert not any(isinstance(module, LinearGelu) for module in quantised.modules())
        torch.testing.assert_close(quantised(*inputs, return_dict=False)[0], before, rtol=1e-4, atol=1e-4)
        dequantise(stored)
        accelerate(stored, settings, CARD)
        assert sum(isinstance(module, LinearGelu) for module in stored.modules()) == 4
        # A CPU's epilogue is the exact activation, a GPU's the approximation that the model is published with.
        torch.testing.assert_close(stored(*inputs, return_dict=False)[0], before, rtol=1e-2, atol=1e-2)
