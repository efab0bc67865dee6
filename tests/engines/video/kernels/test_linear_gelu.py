"""A linear layer and its activation as one kernel compute what the two compute."""

import torch
from diffusers.models.activations import GELU

from deployments.video.kernels.linear_gelu import LinearGelu, LinearThenGelu


@torch.no_grad()
def test_one_kernel_equals_two() -> None:
    published = GELU(16, 64, approximate="tanh")
    x = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(1))
    # A CPU's epilogue is the exact activation, a GPU's the approximation. They differ by less
    # than 1e-3.
    torch.testing.assert_close(LinearGelu(published)(x), published(x), rtol=0, atol=1e-3)
    torch.testing.assert_close(LinearThenGelu(published.proj)(x), published(x), rtol=0, atol=1e-6)
