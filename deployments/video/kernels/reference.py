"""What lies between a model's matrix products and convolutions, in PyTorch's own operations: what `fused` computes in one pass each.

Everything is computed in float32, whatever the type of the tensors, and rounded once, where it is stored.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

E4M3_MOST = 448.0
"""The largest number of torch.float8_e4m3fn."""
TINY = 1e-12
"""In place of a row's largest number where that is 0."""


def residual_norm(
    x: torch.Tensor,
    delta: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``x + gate * delta``, and its layer norm times ``scale`` plus ``shift``; ``[b, n, c]``, the vectors ``[b or 1, c]`` in float32."""
    if delta is not None:
        x = add_gated(x, delta, gate)
    normed = F.layer_norm(x.float(), x.shape[-1:], eps=epsilon)
    return x, (normed * scale[:, None] + shift[:, None]).to(x.dtype)


def add_gated(x: torch.Tensor, delta: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    """``x + gate * delta``; ``[b, n, c]``, ``gate`` ``[b, c]`` in float32, absent: 1."""
    change = delta.float() if gate is None else delta.float() * gate[:, None]
    return (x.float() + change).to(x.dtype)


def norm_rotate_(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float, rotary: tuple[torch.Tensor, torch.Tensor] | None
) -> torch.Tensor:
    """RMS norm over ``[b, n, c]``, then the rotary embedding of each head, in place.

    ``rotary``: cosines and sines, float32 ``[1, n, 1, head]``, each number twice, as diffusers gives them; absent: no rotation.
    """
    normed = F.rms_norm(x.float(), x.shape[-1:], weight.float(), epsilon)
    if rotary is not None:
        cosines, sines = (table[..., ::2] for table in rotary)
        one, other = normed.view(*x.shape[:2], -1, rotary[0].shape[-1] // 2, 2).unbind(-1)
        normed = torch.stack((one * cosines - other * sines, one * sines + other * cosines), dim=-1).flatten(2)
    return x.copy_(normed)


def norm_silu(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Pixels ``[..., c]``, each divided by its length, times ``gain`` (float32 ``[c]``), then SiLU."""
    return F.silu(F.normalize(x.float(), dim=-1) * gain).to(x.dtype)


def unfold_time(
    x: torch.Tensor, before: torch.Tensor | None, gain: torch.Tensor | None, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames ``[t, h, w, c]`` -> ``[t, h, w, 3 c]``, each pixel after those of the two frames before; and the last two frames.

    With ``gain`` the frames go through ``norm_silu`` first, after ``bias`` (``[c]``) is added. ``before``: the last two frames of the
    call before this one, as it gave them; absent: zeros.
    """
    if bias is not None:
        x = (x.float() + bias.float()).to(x.dtype)
    if gain is not None:
        x = norm_silu(x, gain)
    if before is None:
        before = x.new_zeros((2, *x.shape[1:]))
    frames = torch.cat([before, x])
    count = len(x)
    return torch.cat([frames[k : k + count] for k in range(3)], dim=-1), frames[-2:].clone()


def add_(x: torch.Tensor, bias: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
    """``x + bias + other``, in place; ``[..., c]``, ``bias`` ``[c]``, ``other`` like ``x`` or absent."""
    total = x.float() + bias.float()
    return x.copy_(total if other is None else total + other.float())


def enlarge(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Frames ``[t, h, w, j, c]`` -> ``[t j, 2 h, 2 w, c]``: ``j`` frames out of each, every pixel four times; ``bias`` ``[j c]`` added."""
    if bias is not None:
        x = (x.float() + bias.view(x.shape[3:]).float()).to(x.dtype)
    frames = x.permute(0, 3, 1, 2, 4).flatten(0, 1)
    return frames.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def quantise_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[n, c]`` -> the same in e4m3, each row filling that type's range, and the rows' scales, float32 ``[n, 1]``."""
    scales = x.abs().amax(dim=1, keepdim=True).float().clamp(min=TINY) / E4M3_MOST
    return (x.float() / scales).to(torch.float8_e4m3fn), scales
