"""Streamed decoding equals decoding the whole video, bit for bit."""

from dataclasses import replace

import pytest
import torch

from deployments.errors import CheckpointRefused
from deployments.video.engine import WanEngine
from deployments.video.vae.decode_stream import decode_stream, denormalise, to_host, to_pixels
from deployments.video.vae.view import private_view
from deployments.wire import VideoRequest
from tests.engines.random_models import make_vae
from tests.engines.video.recorder import latents_of


@torch.no_grad()
def test_the_stream_is_the_whole_decode_while_other_requests_encode(wan26: WanEngine, small: VideoRequest) -> None:
    vae = wan26.vae
    latents = denormalise(vae, latents_of(wan26, replace(small, num_frames=13)))
    whole = vae.decode(latents, return_dict=False)[0]
    groups = []
    for group in decode_stream(private_view(vae, lambda: None), latents):
        groups.append(group)
        noise = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0))
        private_view(vae, lambda: None).encode(noise)  # another request, between two groups
        vae.encode(noise)
    assert [group.shape[2] for group in groups] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(groups, dim=2), whole)


def test_pixels_are_rounded_and_clamped() -> None:
    group = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 1, 5).expand(1, 3, 1, 1, 5)
    pixels = to_pixels(group)
    assert pixels.shape == (1, 1, 5, 3)
    assert pixels[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]
    [frames] = to_host(iter([[group]]))
    assert frames.tolist() == pixels.tolist()


def test_bands_are_joined_from_top_to_bottom() -> None:
    groups = [[torch.full((1, 3, count, rows, 2), value) for rows, value in ((1, -1.0), (3, 1.0))] for count in (1, 4)]
    first, second = to_host(iter(groups))
    assert (first.shape, second.shape) == ((1, 4, 2, 3), (4, 4, 2, 3))
    assert second[:, 0].max() == 0
    assert second[:, 1:].min() == 255


def test_a_tiling_vae_is_refused() -> None:
    vae = make_vae()
    vae.enable_tiling()
    with pytest.raises(CheckpointRefused, match="tiling"):
        next(decode_stream(vae, torch.zeros(1, 16, 1, 2, 2)))
