"""An encoder that rests where its input stays the same gives the same latents, to the bit."""

from typing import Any

import pytest
import torch

from deployments.video.engine import WanEngine
from deployments.video.vae.view import private_view

Calls = dict[str, int]


def encode(vae: Any, video: torch.Tensor) -> torch.Tensor:
    latents: torch.Tensor = vae.encode(video).latent_dist.mode()
    return latents


@pytest.fixture
def vae(wan26: WanEngine) -> Any:
    return wan26.vae


@pytest.fixture
def calls(vae: Any) -> Any:
    """Count the calls of the encoder's first layers."""
    counts: Calls = {}
    hooks = []
    for name in ("conv_in", "down_blocks.0", "down_blocks.1"):

        def count(*_: object, name: str = name) -> None:
            counts[name] = counts.get(name, 0) + 1

        hooks.append(vae.encoder.get_submodule(name).register_forward_pre_hook(count))
    yield counts
    for hook in hooks:
        hook.remove()


def noise(frames: int, seed: int) -> torch.Tensor:
    return torch.rand(1, 3, frames, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def test_an_image_before_equal_frames_is_encoded_the_same_with_fewer_calls(vae: Any, calls: Calls) -> None:
    video = torch.cat([noise(1, 1), torch.zeros(1, 3, 48, 16, 16)], dim=2)
    expected = encode(vae, video)
    assert calls["conv_in"] == 13
    calls.clear()
    assert torch.equal(encode(private_view(vae, lambda: None), video), expected)
    assert calls == {"conv_in": 3, "down_blocks.0": 5, "down_blocks.1": 5}


@torch.no_grad()
@pytest.mark.parametrize("still", [4, 12, 20, 48])
def test_what_moves_again_after_it_was_still_is_encoded_the_same(vae: Any, still: int) -> None:
    middle = noise(1, 2).expand(1, 3, still, 16, 16)
    video = torch.cat([noise(5, 3), middle, noise(8, 4), middle, noise(4, 5)], dim=2)
    assert torch.equal(encode(private_view(vae, lambda: None), video), encode(vae, video))


@torch.no_grad()
def test_one_view_encodes_several_videos(vae: Any) -> None:
    view, image = private_view(vae, lambda: None), noise(1, 6)
    videos = [*[image] * 8, torch.cat([image, noise(8, 7)], dim=2), image, torch.zeros(1, 3, 33, 16, 16)]
    for video in videos:
        assert torch.equal(encode(view, video), encode(vae, video))


@torch.no_grad()
def test_moving_frames_are_all_computed(vae: Any, calls: Calls) -> None:
    encode(private_view(vae, lambda: None), noise(33, 8))
    assert calls == {"conv_in": 9, "down_blocks.0": 9, "down_blocks.1": 9}
