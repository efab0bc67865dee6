"""The operations between matrix products and convolutions, in plain PyTorch.

``fused`` has the same functions, each as one pass over memory. All of them compute in float32
whatever the dtype of the tensors, and round once, when the result is stored.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

E4M3_MAX = 448.0
"""The largest finite value of ``torch.float8_e4m3fn``."""
MIN_ROW_MAXIMUM = 1e-12
"""A lower bound for the largest magnitude of a row, so that a row of zeros has a scale."""


def residual_norm(
    x: torch.Tensor,
    *,
    delta: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``x + gate * delta``, and its layer norm times ``scale`` plus ``shift``.

    ``x`` and ``delta`` are ``[b, n, c]``; ``gate``, ``scale`` and ``shift`` are float32
    ``[b or 1, c]``. Without ``delta`` the first result is ``x`` itself.
    """
    if delta is not None:
        x = add_gated(x, delta, gate)
    normed = F.layer_norm(x.float(), x.shape[-1:], eps=epsilon)
    return x, (normed * scale[:, None] + shift[:, None]).to(x.dtype)


def add_gated(x: torch.Tensor, delta: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    """Return ``x + gate * delta``.

    ``x`` and ``delta`` are ``[b, n, c]``; ``gate`` is float32 ``[b, c]``, or None for 1.
    """
    change = delta.float() if gate is None else delta.float() * gate[:, None]
    return (x.float() + change).to(x.dtype)


def norm_rotate_(
    x: torch.Tensor, weight: torch.Tensor, *, epsilon: float, rotary: tuple[torch.Tensor, torch.Tensor] | None
) -> torch.Tensor:
    """Apply RMS norm over ``[b, n, c]`` and then the rotary embedding of each head, in place.

    ``rotary`` holds cosines and sines, float32 ``[1, n, 1, head]``, each value twice, as diffusers
    gives them. None means no rotation.
    """
    normed = F.rms_norm(x.float(), x.shape[-1:], weight.float(), epsilon)
    if rotary is not None:
        cosines, sines = (table[..., ::2] for table in rotary)
        one, other = normed.view(*x.shape[:2], -1, rotary[0].shape[-1] // 2, 2).unbind(-1)
        normed = torch.stack((one * cosines - other * sines, one * sines + other * cosines), dim=-1).flatten(2)
    return x.copy_(normed)


def norm_silu(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Return SiLU of the pixels ``[..., c]``, each divided by its length, times ``gain``.

    ``gain`` is float32 ``[c]``.
    """
    return F.silu(F.normalize(x.float(), dim=-1) * gain).to(x.dtype)


def unfold_time(
    x: torch.Tensor, *, before: torch.Tensor | None, gain: torch.Tensor | None, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames ``[t, h, w, 3 c]`` in which each pixel follows those of the two frames before.

    ``x`` is ``[t, h, w, c]``. ``bias`` (``[c]``) is added first; with ``gain`` the frames then go
    through ``norm_silu``. ``before`` holds the two frames before the first, as the second result of
    the previous call returned them; None means zeros. The second result is the last two frames.
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
    """Add ``bias`` and ``other`` to ``x``, in place.

    ``x`` is ``[..., c]``, ``bias`` is ``[c]``, and ``other`` is like ``x`` or None.
    """
    total = x.float() + bias.float()
    return x.copy_(total if other is None else total + other.float())


def enlarge(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return frames ``[t j, 2 h, 2 w, c]`` for ``[t, h, w, j, c]``.

    Each frame yields ``j`` frames, and each pixel four. ``bias`` (``[j c]``) is added if given.
    """
    if bias is not None:
        x = (x.float() + bias.view(x.shape[3:]).float()).to(x.dtype)
    frames = x.permute(0, 3, 1, 2, 4).flatten(0, 1)
    return frames.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def quantise_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``x`` (``[n, c]``) in e4m3, and the scale of each row, float32 ``[n, 1]``.

    Each row is scaled to fill the range of e4m3.
    """
    scales = x.abs().amax(dim=1, keepdim=True).float().clamp(min=MIN_ROW_MAXIMUM) / E4M3_MAX
    return (x.float() / scales).to(torch.float8_e4m3fn), scales
