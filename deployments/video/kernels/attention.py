"""The attention kernels that a block can run, and which one it runs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from deployments.settings import VideoSettings

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps query, key and value, each ``[b, heads, n, head]``, to a tensor of the query's shape."""

HOPPER = (9, 0)
"""The CUDA compute capability of Hopper GPUs."""


def cudnn_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Run cuDNN's attention."""
    # The operator is called by name because PyTorch's choice of a backend is global, and another
    # thread may be changing it.
    result: torch.Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, False)[0]
    return result


def native_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Run the attention that PyTorch chooses."""
    return F.scaled_dot_product_attention(query, key, value)


def pick_attention(settings: VideoSettings, capability: tuple[int, int], dtype: torch.dtype) -> Attention:
    """Return the attention for a GPU of this compute capability.

    ``auto`` picks cuDNN's from Hopper on, where it is twice as fast as PyTorch's choice. float32
    always runs PyTorch's choice, because cuDNN's returns NaN for it.
    """
    if dtype is torch.float32:
        return native_attention
    if settings.attention == "auto":
        return cudnn_attention if capability >= HOPPER else native_attention
    return cudnn_attention if settings.attention == "cudnn" else native_attention
