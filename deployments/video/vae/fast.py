"""Faster modules for the VAE, with fewer passes over memory.

As published, the VAE spends most of its time on a GPU copying, not in convolutions. The modules
that take the time are replaced by ones with diffusers' interface: frames ``[1, c, t, h, w]``, a
list of caches and the index of the next cache. Inside they work on ``[t, h, w, c]``, and replace a
causal convolution over time and space by one over space, of frames that are concatenated with the
two before them. On a Hopper GPU, cuDNN runs that up to twice as fast.
"""

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample, WanResidualBlock, WanRMS_norm
from torch import nn

Caches = list[Any] | None
FIRST_GROUP = "Rep"
"""What diffusers stores in a cache after the first group, whose frames are not doubled."""


def install_fast_modules(vae: Any, operations: ModuleType) -> None:
    """Replace the slow modules of ``vae`` in place.

    ``operations`` is the module ``kernels.reference``, or ``kernels.fused`` on a GPU.
    """
    for part in (vae.encoder, vae.decoder):
        for module in [*part.modules()]:
            for name, child in [*module.named_children()]:
                if isinstance(child, WanResidualBlock):
                    setattr(module, name, ResidualBlock(child, operations))
                elif isinstance(child, WanResample) and child.mode.startswith("upsample"):
                    setattr(module, name, Upsample(child, operations))
        part.conv_out = NormConv(part.norm_out, part.conv_out, operations)
        part.norm_out, part.nonlinearity = nn.Identity(), nn.Identity()
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


class TimeConv(nn.Module):
    """A ``WanCausalConv3d`` over three frames, which takes the result of ``unfold_time``.

    The bias is not added.
    """

    def __init__(self, conv: WanCausalConv3d) -> None:
        super().__init__()
        weight = conv.weight.permute(0, 2, 1, 3, 4).flatten(1, 2)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter(_bias(conv), requires_grad=False)
        self._padding = (weight.shape[2] // 2, weight.shape[3] // 2)

    def forward(self, unfolded: torch.Tensor) -> torch.Tensor:
        """Map ``[t, h, w, 3 c]`` to ``[t, h, w, d]``."""
        return F.conv2d(unfolded.permute(0, 3, 1, 2), self.weight, padding=self._padding).permute(0, 2, 3, 1).contiguous()


class ResidualBlock(nn.Module):
    """A fast ``WanResidualBlock``."""

    def __init__(self, block: WanResidualBlock, operations: ModuleType) -> None:
        super().__init__()
        self.conv1, self.conv2 = TimeConv(block.conv1), TimeConv(block.conv2)
        self.gain1, self.gain2 = (nn.Buffer(_gain(norm)) for norm in (block.norm1, block.norm2))
        self.shortcut: nn.Linear | None = None
        if isinstance(block.conv_shortcut, WanCausalConv3d):
            self.shortcut = _linear(block.conv_shortcut)
        self._operations = operations

    def forward(self, x: torch.Tensor, feat_cache: Caches = None, feat_idx: list[int] | None = None) -> torch.Tensor:
        """Map frames ``[1, c, t, h, w]`` to ``[1, d, t, h, w]``."""
        frames = _frames(x)
        residual = frames if self.shortcut is None else self.shortcut(frames)
        caches = _Caches(feat_cache, feat_idx)
        unfolded = caches.unfold(self._operations, frames, gain=self.gain1, bias=None)
        unfolded = caches.unfold(self._operations, self.conv1(unfolded), gain=self.gain2, bias=self.conv1.bias)
        return _video(self._operations.add_(self.conv2(unfolded), self.conv2.bias, residual))


class Upsample(nn.Module):
    """A fast ``WanResample`` of the decoder.

    It doubles the size of each frame, and in its 3D modes the number of frames of every group
    except the first.
    """

    def __init__(self, resample: WanResample, operations: ModuleType) -> None:
        super().__init__()
        conv = resample.resample[1]
        self.weight = nn.Parameter(conv.weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
        self.time_conv = TimeConv(resample.time_conv) if resample.mode == "upsample3d" else None
        self._operations = operations

    def forward(self, x: torch.Tensor, feat_cache: Caches = None, feat_idx: list[int] | None = None) -> torch.Tensor:
        """Map frames ``[1, c, t, h, w]`` to ``[1, d, t or 2 t, 2 h, 2 w]``."""
        frames, bias = _frames(x), None
        if self.time_conv is not None and feat_cache is not None:
            caches = _Caches(feat_cache, feat_idx)
            if caches.is_first_group():
                caches.store(FIRST_GROUP)
            else:
                frames = self.time_conv(caches.unfold(self._operations, frames, gain=None, bias=None))
                bias = self.time_conv.bias
        large = self._operations.enlarge(frames.view(*frames.shape[:3], -1, x.shape[1]), bias)
        result = F.conv2d(large.permute(0, 3, 1, 2), self.weight, padding=1).permute(0, 2, 3, 1).contiguous()
        return _video(self._operations.add_(result, self.bias, None))


class NormConv(nn.Module):
    """The end of an encoder or decoder: norm, SiLU and convolution.

    As in diffusers, the cache holds frames before the norm.
    """

    def __init__(self, norm: WanRMS_norm, conv: WanCausalConv3d, operations: ModuleType) -> None:
        super().__init__()
        self.conv = TimeConv(conv)
        self.gain = nn.Buffer(_gain(norm))
        self._operations = operations

    def forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``x``, ``[1, c, t, h, w]``, to ``[1, d, t, h, w]``.

        ``cache_x`` holds the one or two frames before ``x``.
        """
        before = None
        if cache_x is not None:
            before = self._operations.norm_silu(_frames(cache_x), self.gain)
            if len(before) == 1:
                before = torch.cat([torch.zeros_like(before), before])
        unfolded, _ = self._operations.unfold_time(_frames(x), before=before, gain=self.gain, bias=None)
        return _video(self._operations.add_(self.conv(unfolded), self.conv.bias, None))


class _Caches:
    """Diffusers' list of caches, of which each causal convolution uses the next one."""

    def __init__(self, caches: Caches, index: list[int] | None) -> None:
        self._caches, self._index = caches, index or [0]

    def is_first_group(self) -> bool:
        """Return whether the current cache is still empty."""
        return self._caches is not None and self._caches[self._index[0]] is None

    def store(self, value: Any) -> None:
        """Store ``value`` for the next group, and move on to the next cache."""
        if self._caches is not None:
            self._caches[self._index[0]] = value
            self._index[0] += 1

    def unfold(
        self, operations: ModuleType, frames: torch.Tensor, *, gain: torch.Tensor | None, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Run ``unfold_time`` with the frames that the previous group stored."""
        before = None if self._caches is None else self._caches[self._index[0]]
        unfolded, last = operations.unfold_time(frames, before=None if before is FIRST_GROUP else before, gain=gain, bias=bias)
        self.store(last)
        assert isinstance(unfolded, torch.Tensor)
        return unfolded


def _frames(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` (``[1, c, t, h, w]``) as ``[t, h, w, c]``."""
    if len(x) != 1:
        raise ValueError(f"the fast VAE takes one video at a time, not {len(x)}")
    # Nothing is copied where channels are last in memory, as in the results of these modules.
    return x[0].permute(1, 2, 3, 0).contiguous()


def _video(frames: torch.Tensor) -> torch.Tensor:
    return frames.permute(3, 0, 1, 2)[None]


def _gain(norm: WanRMS_norm) -> torch.Tensor:
    gain: torch.Tensor = norm.gamma.detach().float().flatten() * norm.scale
    return gain


def _bias(conv: WanCausalConv3d) -> torch.Tensor:
    bias: torch.Tensor = conv.bias.detach()
    return bias


def _linear(conv: WanCausalConv3d) -> nn.Linear:
    linear = nn.Linear(conv.in_channels, conv.out_channels, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1), requires_grad=False)
    linear.bias = nn.Parameter(_bias(conv), requires_grad=False)
    return linear
