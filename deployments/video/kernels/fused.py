"""The operations of ``reference`` as Triton kernels for a GPU, each one pass over memory.

Meaning, shapes and dtypes are documented in ``reference``.
"""

import torch
from triton import cdiv, next_power_of_2

from deployments.video.kernels import triton as kernels
from deployments.video.kernels.reference import E4M3_MAX, MIN_ROW_MAXIMUM

PIXEL_WARPS = 4
"""Warps of a kernel that handles several pixels."""


def residual_norm(
    x: torch.Tensor,
    *,
    delta: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``reference.residual_norm``."""
    _require_contiguous(x, delta)
    batch, tokens, width = x.shape
    total, normed = x if delta is None else torch.empty_like(x), torch.empty_like(x)
    kernels.residual_norm[(batch * tokens,)](
        x=x,
        delta=delta,
        gate=gate,
        scale=scale,
        shift=shift,
        total=total,
        normed=normed,
        tokens=tokens,
        width=width,
        gate_stride=_stride_of_samples(gate),
        scale_stride=_stride_of_samples(scale),
        shift_stride=_stride_of_samples(shift),
        epsilon=epsilon,
        ADD=delta is not None,
        GATED=gate is not None,
        NORM=True,
        BLOCK=next_power_of_2(width),
        num_warps=_row_warps(width),
    )
    return total, normed


def add_gated(x: torch.Tensor, delta: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    """See ``reference.add_gated``."""
    _require_contiguous(x, delta)
    batch, tokens, width = x.shape
    total = torch.empty_like(x)
    kernels.residual_norm[(batch * tokens,)](
        x=x,
        delta=delta,
        gate=gate,
        scale=None,
        shift=None,
        total=total,
        normed=None,
        tokens=tokens,
        width=width,
        gate_stride=_stride_of_samples(gate),
        scale_stride=0,
        shift_stride=0,
        epsilon=0.0,
        ADD=True,
        GATED=gate is not None,
        NORM=False,
        BLOCK=next_power_of_2(width),
        num_warps=_row_warps(width),
    )
    return total


def norm_rotate_(
    x: torch.Tensor, weight: torch.Tensor, *, epsilon: float, rotary: tuple[torch.Tensor, torch.Tensor] | None
) -> torch.Tensor:
    """See ``reference.norm_rotate_``."""
    _require_contiguous(x)
    batch, tokens, width = x.shape
    cosines, sines = rotary if rotary is not None else (None, None)
    kernels.norm_rotate[(batch * tokens,)](
        x=x,
        weight=weight,
        cosines=cosines,
        sines=sines,
        tokens=tokens,
        width=width,
        epsilon=epsilon,
        HEAD=2 if cosines is None else cosines.shape[-1],
        ROTATE=rotary is not None,
        BLOCK=next_power_of_2(width),
        num_warps=_row_warps(width),
    )
    return x


def norm_silu(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """See ``reference.norm_silu``."""
    channels = x.shape[-1]
    result, pixels, rows = torch.empty_like(x), x.numel() // channels, _pixels_per_program(channels)
    kernels.norm_silu[(cdiv(pixels, rows),)](
        x=x,
        gain=gain,
        result=result,
        pixels=pixels,
        channels=channels,
        BLOCK=next_power_of_2(channels),
        ROWS=rows,
        num_warps=PIXEL_WARPS,
    )
    return result


def unfold_time(
    x: torch.Tensor, *, before: torch.Tensor | None, gain: torch.Tensor | None, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``reference.unfold_time``."""
    count, height, width, channels = x.shape
    unfolded, last = x.new_empty((count, height, width, 3 * channels)), x.new_empty((2, height, width, channels))
    pixels, rows = height * width, _pixels_per_program(channels)
    kernels.unfold_time[(cdiv(pixels, rows), count + 2)](
        x=x,
        before=before,
        gain=gain,
        bias=bias,
        unfolded=unfolded,
        last=last,
        count=count,
        pixels=pixels,
        channels=channels,
        BEFORE=before is not None,
        NORM=gain is not None,
        BIAS=bias is not None,
        BLOCK=next_power_of_2(channels),
        ROWS=rows,
        num_warps=PIXEL_WARPS,
    )
    return unfolded, last


def add_(x: torch.Tensor, bias: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
    """See ``reference.add_``."""
    channels = x.shape[-1]
    pixels, rows = x.numel() // channels, _pixels_per_program(channels)
    kernels.add[(cdiv(pixels, rows),)](
        x=x,
        bias=bias,
        other=other,
        pixels=pixels,
        channels=channels,
        OTHER=other is not None,
        BLOCK=next_power_of_2(channels),
        ROWS=rows,
        num_warps=PIXEL_WARPS,
    )
    return x


def enlarge(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """See ``reference.enlarge``."""
    count, height, width, times, channels = x.shape
    result, rows = x.new_empty((count * times, 2 * height, 2 * width, channels)), _pixels_per_program(channels)
    kernels.enlarge[(cdiv(height * width, rows), count * times)](
        x=x,
        bias=bias,
        result=result,
        height=height,
        width=width,
        times=times,
        channels=channels,
        BIAS=bias is not None,
        BLOCK=next_power_of_2(channels),
        ROWS=rows,
        num_warps=PIXEL_WARPS,
    )
    return result


def quantise_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``reference.quantise_rows``."""
    _require_contiguous(x)
    rows, width = x.shape
    quantised = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    scales = x.new_empty((rows, 1), dtype=torch.float32)
    kernels.quantise_rows[(rows,)](
        x=x,
        quantised=quantised,
        scales=scales,
        width=width,
        MAX=E4M3_MAX,
        MIN_ROW_MAXIMUM=MIN_ROW_MAXIMUM,
        BLOCK=next_power_of_2(width),
        num_warps=_row_warps(width),
    )
    return quantised, scales


def _require_contiguous(*tensors: torch.Tensor | None) -> None:
    # The kernels compute addresses from row numbers, and would read the wrong elements otherwise.
    if not all(tensor is None or tensor.is_contiguous() for tensor in tensors):
        raise ValueError("the rows of a tensor are not contiguous in memory; call `.contiguous()` on it first")


def _stride_of_samples(vectors: torch.Tensor | None) -> int:
    """Return the stride between the samples of ``[b, c]``; 0 where all samples share one vector."""
    return 0 if vectors is None or len(vectors) == 1 else vectors.stride(0)


def _row_warps(width: int) -> int:
    """Return the number of warps for a kernel that handles one row."""
    return 4 if width <= 2048 else 8


def _pixels_per_program(channels: int) -> int:
    return max(1, 2048 // int(next_power_of_2(channels)))
