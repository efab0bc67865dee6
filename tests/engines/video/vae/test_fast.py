"""The quick VAE is the published one."""

import copy

import pytest
import torch

from deployments.video import unfused
from deployments.video.vae.decode_stream import decode_stream, denormalise
from deployments.video.vae.fast import NormConv, ResidualBlock, Upsample, quicken
from deployments.video.engine import WanEngine


@pytest.fixture(scope="module")
def pair(wan26: WanEngine) -> tuple[torch.nn.Module, torch.nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        published = copy.deepcopy(wan26.vae)
        for name, parameter in published.named_parameters():
            if name.endswith("gamma"):  # as made, all are 1
                torch.nn.init.normal_(parameter, 1.0, 0.3)
    quick = copy.deepcopy(published)
    quicken(quick, unfused)
    for kind, least in ((ResidualBlock, 10), (Upsample, 3), (NormConv, 2)):
        assert sum(isinstance(module, kind) for module in quick.modules()) >= least
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
def test_in_bfloat16_it_is_nearer_to_float32(pair: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    latents = torch.randn(1, 16, 2, 6, 8, generator=torch.Generator().manual_seed(3))
    exact = torch.cat([*decode_stream(pair[0], denormalise(pair[0], latents))], dim=2)
    theirs, quick = (copy.deepcopy(pair[0]).to(torch.bfloat16) for _ in range(2))
    quicken(quick, unfused)
    decoded = (torch.cat([*decode_stream(vae, denormalise(vae, latents))], dim=2) for vae in (quick, theirs))
    errors = [float((video.float() - exact).norm()) for video in decoded]
    assert errors[0] < errors[1]


def test_it_takes_one_video_at_a_time(pair: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    with pytest.raises(ValueError, match="one video at a time, not 2"):
        pair[1].encode(torch.zeros(2, 3, 1, 16, 16))  # type: ignore[operator]
