"""The attention kernels that a block can run, and which one it runs."""

import logging
from collections.abc import Callable
from importlib import import_module

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from deployments.errors import CheckpointRefused
from deployments.settings import VideoSettings

log = logging.getLogger(__name__)

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps query, key and value, each ``[b, heads, n, head]``, to a tensor of the query's shape."""

HOPPER = (9, 0)
"""The CUDA compute capability of Hopper GPUs."""
FLASH_PACKAGE = "fa3_fwd_interface"
"""The module of the package `fa3-fwd`, the forward kernels of FlashAttention-3."""
FLASH_HEAD = 128
"""The values of a head for which the package is known to have a kernel: that of every Wan model."""
FLASH_KEYS = 512
"""The number of keys from which FlashAttention-3 is used: those of a text, on which it is as fast
as cuDNN's on the GPU and takes a quarter of the time to launch."""


def cudnn_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Run cuDNN's attention."""
    # The operator is called by name because PyTorch's choice of a backend is global, and another
    # thread may be changing it.
    result: torch.Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, False)[0]
    return result


def flash_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Run FlashAttention-3."""
    # It takes [b, n, heads, head], which is how the projections left the values in memory.
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    # The operator itself is called. The package's function for training prepares a backward pass,
    # which takes the Python interpreter so long that two GPUs wait for their threads.
    result: torch.Tensor = import_module(FLASH_PACKAGE).fa3_fwd_cuda.fwd(
        query, key, value, softmax_scale=FLASH_HEAD**-0.5, num_splits=1
    )[0]
    return result.transpose(1, 2)


def hopper_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Run FlashAttention-3 if it can, from a text's tokens on, and cuDNN's attention otherwise."""
    if key.shape[2] < FLASH_KEYS or key.shape[3] != FLASH_HEAD or key.dtype is not torch.bfloat16:
        return cudnn_attention(query, key, value)
    return flash_attention(query, key, value)


def native_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Run the attention that PyTorch chooses."""
    return F.scaled_dot_product_attention(query, key, value)


def pick_attention(settings: VideoSettings, capability: tuple[int, int], dtype: torch.dtype) -> Attention:
    """Return the attention for a GPU of this compute capability.

    ``auto`` picks FlashAttention-3 on Hopper if its package is installed. Without it, and on later
    GPUs, it picks cuDNN's, which is twice as fast as PyTorch's choice. float32 always runs
    PyTorch's choice, because cuDNN's returns NaN for it. Raises ``CheckpointRefused`` if
    ``settings`` ask for FlashAttention-3 where it cannot run.
    """
    if dtype is torch.float32:
        return native_attention
    has_flash = capability == HOPPER and _flash_imports()
    if settings.attention == "flash" and not has_flash:
        raise CheckpointRefused(
            "`attention: flash` needs a Hopper GPU and the package `fa3-fwd`; install it, or set `attention: auto`"
        )
    if settings.attention == "auto" and capability >= HOPPER:
        return hopper_attention if has_flash else cudnn_attention
    return {"flash": hopper_attention, "cudnn": cudnn_attention}.get(settings.attention, native_attention)


def _flash_imports() -> bool:
    try:
        import_module(FLASH_PACKAGE)
    except ModuleNotFoundError:
        return False
    except (ImportError, OSError) as error:  # for instance a build for another CUDA or PyTorch
        log.warning("the package `fa3-fwd` is installed but cannot be imported: %s", error)
        return False
    return True


_NAMES: dict[Attention, str] = {
    hopper_attention: "FlashAttention-3",
    cudnn_attention: "cuDNN's attention",
    native_attention: "PyTorch's attention",
}


def describe_attention(settings: VideoSettings, capability: tuple[int, int], dtype: torch.dtype) -> str:
    """Return the name of what ``pick_attention`` returns, and how to get a faster one."""
    picked = pick_attention(settings, capability, dtype)
    slower = picked is cudnn_attention and settings.attention == "auto" and capability == HOPPER
    return _NAMES[picked] + (" (a working `fa3-fwd` would be faster)" if slower else "")
