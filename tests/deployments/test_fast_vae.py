"""The quick VAE is the published one."""

import copy

import pytest
import torch

from deployments.video.decode_stream import decode_stream, denormalise
from deployments.video.fast_vae import CausalConv, NormSilu, quicken
from deployments.video.generate import WanEngine


@pytest.fixture(scope="module")
def pair(wan26: WanEngine) -> tuple[torch.nn.Module, torch.nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        published = copy.deepcopy(wan26.vae)
        for name, parameter in published.named_parameters():
            if name.endswith("gamma"):  # as made, all are 1
                torch.nn.init.normal_(parameter, 1.0, 0.3)
    quick = copy.deepcopy(published)
    quicken(quick, compiled=False)
    assert sum(isinstance(m, NormSilu) for m in quick.modules()) > 10
    assert sum(isinstance(m, CausalConv) for m in quick.modules()) > 20
    return published, quick


@torch.no_grad()
def test_it_decodes_as_published(pair: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    latents = torch.randn(1, 16, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    theirs, ours = ([*decode_stream(vae, denormalise(vae, latents))] for vae in pair)
    assert [group.shape for group in ours] == [group.shape for group in theirs]
    assert torch.cat(theirs, dim=2).std() > 0.01
    torch.testing.assert_close(torch.cat(ours, dim=2), torch.cat(theirs, dim=2), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_it_encodes_as_published(pair: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    video = torch.rand(1, 3, 9, 48, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    theirs, ours = (vae.encode(video).latent_dist.mode() for vae in pair)  # type: ignore[operator]
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_in_bfloat16_its_norms_are_nearer_to_float32(pair: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    published, quick = (copy.deepcopy(vae).to(torch.bfloat16) for vae in pair)
    x = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    exact = pair[1].decoder.norm_out(x)  # type: ignore[union-attr, operator]
    theirs = torch.nn.functional.silu(published.decoder.norm_out(x.bfloat16()))  # type: ignore[union-attr, operator]
    ours = quick.decoder.norm_out(x.bfloat16())  # type: ignore[union-attr, operator]
    assert (ours.float() - exact).norm() < 0.9 * (theirs.float() - exact).norm()
