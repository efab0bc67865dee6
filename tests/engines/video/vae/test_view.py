"""A request's view of a VAE: the weights are shared, and nothing else is."""

import pytest
import torch
from torch import nn

from deployments.video.vae.view import private_view


class Vae(nn.Module):
    """A VAE with a cache that encoding writes, as diffusers' has one."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 2)
        self.decoder = nn.Linear(2, 2)
        self.cache: list[torch.Tensor] = []

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Encode ``x`` and replace the cache."""
        encoded: torch.Tensor = self.encoder(x)
        self.cache = [encoded]
        return encoded


def test_a_view_has_the_weights_of_the_vae_and_a_cache_of_its_own() -> None:
    vae, x = Vae(), torch.ones(1, 2)
    one, other = private_view(vae, lambda: None), private_view(vae, lambda: None)
    assert one.decoder is vae.decoder
    assert torch.equal(one.encode(x), vae.encoder(x))
    kept = one.cache[0].clone()
    other.encode(2 * x)
    assert torch.equal(one.cache[0], kept)
    assert vae.cache == []
    assert isinstance(vae.encoder, nn.Linear), "the VAE itself keeps its encoder"
    with torch.no_grad():
        vae.encoder.weight.zero_()
    assert torch.equal(one.encode(x), vae.encoder.bias[None])


def test_the_check_comes_before_each_group_and_ends_the_encoding() -> None:
    vae = Vae()
    calls: list[int] = []

    def check() -> None:
        calls.append(len(calls))
        if len(calls) == 3:
            raise InterruptedError

    view = private_view(vae, check)
    view.encode(torch.ones(1, 2))
    view.encode(torch.zeros(1, 2))
    last = view.cache
    with pytest.raises(InterruptedError):
        view.encode(torch.ones(1, 2))
    assert view.cache is last, "nothing was encoded"
    vae.encode(torch.ones(1, 2))
    assert calls == [0, 1, 2], "the VAE itself is not checked"
