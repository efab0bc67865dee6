"""The reference operations, each compared with a direct transcription of its definition."""

import pytest
import torch

from deployments.video.kernels.reference import (
    E4M3_MAX,
    add_,
    add_gated,
    enlarge,
    norm_rotate_,
    norm_silu,
    quantise_rows,
    residual_norm,
    unfold_time,
)

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR).to(dtype)


def test_a_gated_change_is_added_in_float32_and_rounded_once() -> None:
    x, delta, gate = random(2, 3, 4, dtype=torch.bfloat16), random(2, 3, 4, dtype=torch.bfloat16), random(2, 4)
    exact = (x.double() + gate[:, None].double() * delta.double()).to(torch.bfloat16)
    assert torch.equal(add_gated(x, delta, gate), exact)
    assert torch.equal(add_gated(x, delta, None), (x.float() + delta.float()).to(torch.bfloat16))


@pytest.mark.slow
def test_the_norm_of_a_residual_has_no_mean_and_unit_variance_before_it_is_scaled() -> None:
    x, delta, gate = random(2, 3, 64), random(2, 3, 64), random(2, 64)
    total, normed = residual_norm(
        x, delta=delta, gate=gate, scale=torch.full((2, 64), 3.0), shift=torch.ones(2, 64), epsilon=1e-6
    )
    assert torch.equal(total, add_gated(x, delta, gate))
    torch.testing.assert_close(normed.mean(-1), torch.ones(2, 3))
    torch.testing.assert_close(normed.std(-1, unbiased=False), torch.full((2, 3), 3.0), rtol=1e-4, atol=1e-4)
    same, _ = residual_norm(x, delta=None, gate=None, scale=torch.ones(1, 64), shift=torch.zeros(1, 64), epsilon=1e-6)
    assert same is x


def test_rotation_turns_each_pair_of_values_and_keeps_its_length() -> None:
    angle = torch.tensor(0.5)
    tables = (angle.cos().expand(1, 1, 1, 4), angle.sin().expand(1, 1, 1, 4))
    x = random(1, 1, 8)
    normed = x / (x.square().mean() + 1e-6).sqrt()
    rotated = norm_rotate_(x, torch.ones(8), epsilon=1e-6, rotary=tables)
    assert rotated is x
    for one, other in ((0, 1), (2, 3), (4, 5), (6, 7)):
        a, b = normed[0, 0, one], normed[0, 0, other]
        torch.testing.assert_close(rotated[0, 0, one], a * angle.cos() - b * angle.sin())
        torch.testing.assert_close(rotated[0, 0, other], a * angle.sin() + b * angle.cos())


def test_pixels_are_divided_by_their_length() -> None:
    gain = random(4)
    unit = torch.tensor([[0.6, 0.8, 0.0, 0.0]])
    torch.testing.assert_close(norm_silu(5 * unit, gain), torch.nn.functional.silu(unit * gain))


def test_frames_follow_the_two_before_them_across_calls() -> None:
    x = random(5, 2, 2, 3)
    whole, last = unfold_time(x, before=None, gain=None, bias=None)
    assert torch.equal(whole[0], torch.cat([torch.zeros(2, 2, 6), x[0]], dim=-1))
    assert torch.equal(whole[4], torch.cat([x[2], x[3], x[4]], dim=-1))
    assert torch.equal(last, x[3:])
    first, state = unfold_time(x[:3], before=None, gain=None, bias=None)
    second, _ = unfold_time(x[3:], before=state, gain=None, bias=None)
    assert torch.equal(torch.cat([first, second]), whole)


def test_biases_are_added_in_place() -> None:
    x, bias, other = random(2, 3), random(3), random(2, 3)
    expected = x + bias + other
    assert torch.equal(add_(x, bias, other), expected)
    assert torch.equal(x, expected)


def test_each_frame_becomes_several_and_each_pixel_four() -> None:
    x = random(1, 1, 2, 2, 3)
    frames = enlarge(x, None)
    assert frames.shape == (2, 2, 4, 3)
    assert torch.equal(frames[1, 1, 3], x[0, 0, 1, 1])
    assert torch.equal(frames[0, 0, 0], x[0, 0, 0, 0])


def test_rows_fill_the_range_of_e4m3_and_zeros_stay_zeros() -> None:
    x = torch.stack([random(16), torch.zeros(16)])
    quantised, scales = quantise_rows(x)
    assert quantised[0].float().abs().max() == E4M3_MAX
    assert torch.equal(quantised[1].float(), torch.zeros(16))
    torch.testing.assert_close(quantised[0].float() * scales[0], x[0], rtol=0.07, atol=float(scales[0]) * 2**-9)
