"""`unfused`'s operations, one pass over memory each: Triton kernels for a GPU. Meaning, shapes and types are there."""

import torch
import triton

from deployments.video import kernels
from deployments.video.kernels.reference import E4M3_MOST, TINY

ROW_WARPS = 4


def residual_norm(
    x: torch.Tensor,
    delta: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `unfused`."""
    _require_contiguous(x, delta)
    batch, tokens, width = x.shape
    total, normed = x if delta is None else torch.empty_like(x), torch.empty_like(x)
    kernels.residual_norm[(batch * tokens,)](
        *(x, delta, gate, scale, shift, total, normed, tokens, width),
        *(0 if vector is None or len(vector) == 1 else vector.stride(0) for vector in (gate, scale, shift)),
        epsilon,
        *(delta is not None, gate is not None, True, triton.next_power_of_2(width)),
        num_warps=_warps(width),
    )
    return total, normed


def add_gated(x: torch.Tensor, delta: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    """See `unfused`."""
    _require_contiguous(x, delta)
    batch, tokens, width = x.shape
    total = torch.empty_like(x)
    kernels.residual_norm[(batch * tokens,)](
        *(x, delta, gate, None, None, total, None, tokens, width),
        *(0 if gate is None or len(gate) == 1 else gate.stride(0), 0, 0),
        0.0,
        *(True, gate is not None, False, triton.next_power_of_2(width)),
        num_warps=_warps(width),
    )
    return total


def norm_rotate_(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float, rotary: tuple[torch.Tensor, torch.Tensor] | None
) -> torch.Tensor:
    """See `unfused`."""
    _require_contiguous(x)
    batch, tokens, width = x.shape
    cosines, sines = rotary if rotary is not None else (None, None)
    head = 2 if cosines is None else cosines.shape[-1]
    kernels.norm_rotate[(batch * tokens,)](
        *(x, weight, cosines, sines, tokens, width, epsilon, head, rotary is not None, triton.next_power_of_2(width)),
        num_warps=_warps(width),
    )
    return x


def norm_silu(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """See `unfused`."""
    channels = x.shape[-1]
    result, pixels, rows = torch.empty_like(x), x.numel() // channels, _rows(channels)
    kernels.norm_silu[(triton.cdiv(pixels, rows),)](
        *(x, gain, result, pixels, channels, triton.next_power_of_2(channels), rows), num_warps=ROW_WARPS
    )
    return result


def unfold_time(
    x: torch.Tensor, before: torch.Tensor | None, gain: torch.Tensor | None, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `unfused`."""
    count, height, width, channels = x.shape
    unfolded, last = x.new_empty((count, height, width, 3 * channels)), x.new_empty((2, height, width, channels))
    pixels, rows = height * width, _rows(channels)
    kernels.unfold_time[(triton.cdiv(pixels, rows), count + 2)](
        *(x, before, gain, bias, unfolded, last, count, pixels, channels),
        *(before is not None, gain is not None, bias is not None, triton.next_power_of_2(channels), rows),
        num_warps=ROW_WARPS,
    )
    return unfolded, last


def add_(x: torch.Tensor, bias: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
    """See `unfused`."""
    channels = x.shape[-1]
    pixels, rows = x.numel() // channels, _rows(channels)
    kernels.add[(triton.cdiv(pixels, rows),)](
        *(x, bias, other, pixels, channels, other is not None, triton.next_power_of_2(channels), rows), num_warps=ROW_WARPS
    )
    return x


def enlarge(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """See `unfused`."""
    count, height, width, times, channels = x.shape
    result, rows = x.new_empty((count * times, 2 * height, 2 * width, channels)), _rows(channels)
    kernels.enlarge[(triton.cdiv(height * width, rows), count * times)](
        *(x, bias, result, height, width, times, channels, bias is not None, triton.next_power_of_2(channels), rows),
        num_warps=ROW_WARPS,
    )
    return result


def quantise_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See `unfused`."""
    _require_contiguous(x)
    rows, width = x.shape
    quantised, scales = torch.empty_like(x, dtype=torch.float8_e4m3fn), x.new_empty((rows, 1), dtype=torch.float32)
    kernels.quantise_rows[(rows,)](
        *(x, quantised, scales, width, E4M3_MOST, TINY, triton.next_power_of_2(width)), num_warps=_warps(width)
    )
    return quantised, scales


def _require_contiguous(*tensors: torch.Tensor | None) -> None:
    """The kernels go by rows that follow each other, and would read others without a word."""
    if not all(tensor is None or tensor.is_contiguous() for tensor in tensors):
        raise ValueError("a tensor whose rows do not follow each other")


def _warps(width: int) -> int:
    """Of a program that has a whole row."""
    return 4 if width <= 2048 else 8


def _rows(channels: int) -> int:
    """Pixels of one program."""
    return max(1, 2048 // int(triton.next_power_of_2(channels)))
