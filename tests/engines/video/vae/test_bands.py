"""Bands that devices decode on their own are, one below the other, the frames of the whole."""

import pytest
import torch

from deployments.video.kernels import reference
from deployments.video.vae.bands import band_view, decode_bands
from deployments.video.vae.decode_stream import decode_stream
from deployments.video.vae.fast import install_fast_modules
from tests.engines.random_models import make_vae


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(("count", "height"), [(1, 6), (2, 5), (3, 31), (4, 40)])
@torch.no_grad()
def test_bands_are_the_frames_of_the_whole(fast: bool, count: int, height: int) -> None:
    torch.manual_seed(3)
    vae = make_vae()
    if fast:
        install_fast_modules(vae, reference)
    latents = torch.randn(1, 16, 3, height, 4)
    expected = [*decode_stream(vae, latents)]
    groups = [*decode_bands([vae] * count, latents)]
    assert [len(group) for group in groups] == [count] * 3
    for group, whole in zip(groups, expected, strict=True):
        torch.testing.assert_close(torch.cat(group, dim=3), whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_band_computes_fewer_rows_than_the_whole() -> None:
    vae = make_vae()
    rows: list[int] = []
    view = band_view(vae, (0, 320), 80)
    for block in view.decoder.up_blocks:
        block.module.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[3]))
    [group] = decode_stream(view, torch.randn(1, 16, 1, 80, 2))
    assert group.shape[3] == 320
    heights = [80, 160, 320, 640]
    assert rows == sorted(rows)
    assert all(height // 2 < count < 0.75 * height for count, height in zip(rows, heights, strict=True))
