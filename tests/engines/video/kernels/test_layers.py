"""Copies with replaced layers share the other weights, and the original is unchanged."""

import torch
from diffusers.models.activations import GELU
from torch import nn

from deployments.video.kernels.layers import with_layers
from deployments.video.kernels.linear_gelu import LinearGelu, LinearThenGelu


def test_only_the_replaced_layer_differs() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    first, replacement = model[0], nn.Linear(2, 2)
    changed = with_layers(model, lambda layer: replacement if layer is first else None)
    assert changed[0] is replacement
    assert changed[1] is model[1]
    assert model[0] is first


def test_without_a_replacement_the_model_itself_is_returned() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert with_layers(model, lambda layer: None) is model


def test_a_replaced_linear_layer_keeps_its_activation() -> None:
    published = GELU(4, 8, approximate="tanh")
    model = nn.Sequential(LinearGelu(published))
    doubled = nn.Linear(4, 8)
    with torch.no_grad():
        doubled.weight.copy_(2 * published.proj.weight)
        doubled.bias.copy_(published.proj.bias)
        changed = with_layers(model, lambda layer: doubled if layer is published.proj else None)
        assert isinstance(changed[0], LinearThenGelu)
        x = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
        expected = torch.nn.functional.gelu(doubled(x), approximate="tanh")
        torch.testing.assert_close(changed(x), expected)
