"""A layer with a LoRA computes the same by merging its weight as by adding to its output."""

from typing import Any

import pytest
import torch
from torch import nn

from deployments.video.kernels.linear_gelu import LinearThenGelu
from deployments.video.kernels.lora_linear import LoraLinear, saves_bytes


class OnGpu(torch.Tensor):
    """A tensor that says that it is on a GPU; its arithmetic is that of the CPU."""

    is_cuda = True


def lora(linear: nn.Module, *, width: int, features: int) -> LoraLinear:
    lot = torch.Generator().manual_seed(1)
    return LoraLinear(linear, torch.randn(4, width, generator=lot), torch.randn(features, 4, generator=lot), 0.7)


@pytest.mark.parametrize("activation", [False, True])
@torch.no_grad()
def test_many_rows_on_a_gpu_merge_the_weight_and_the_layer_keeps_its_own(activation: bool) -> None:
    linear = nn.Linear(16, 32)
    before = linear.weight.clone()
    layer: Any = lora(linear, width=16, features=32)
    module = LinearThenGelu(layer) if activation else layer
    x = torch.randn(2, 100, 16, generator=torch.Generator().manual_seed(2))
    there = x.as_subclass(OnGpu)
    merged = layer.merged_weight(there)
    assert merged is not None
    torch.testing.assert_close(merged, linear.weight + 0.7 * layer.up @ layer.down)
    # A CPU's epilogue is the exact activation, a GPU's the approximation.
    tolerance = 1e-3 if activation else 1e-5
    torch.testing.assert_close(torch.Tensor(module(there)), module(x), rtol=tolerance, atol=tolerance)
    assert torch.equal(linear.weight, before)


@torch.no_grad()
def test_a_cpu_few_rows_and_other_layers_add_to_the_output() -> None:
    layer = lora(nn.Linear(16, 32), width=16, features=32)
    assert layer.merged_weight(torch.ones(2, 100, 16)) is None, "the same bytes as ever on a CPU"
    assert layer.merged_weight(torch.ones(1, 3, 16).as_subclass(OnGpu)) is None

    class Quantised(nn.Linear):
        """A layer whose weight is no matrix of numbers."""

    other = lora(Quantised(16, 32), width=16, features=32)
    assert other.merged_weight(torch.ones(2, 100, 16).as_subclass(OnGpu)) is None


def test_merging_pays_for_the_tokens_of_a_video_and_not_for_those_of_a_text() -> None:
    assert saves_bytes(14_040, 1536, 8960)
    assert saves_bytes(32_760, 13_824, 5120)
    assert not saves_bytes(512, 1536, 1536)
