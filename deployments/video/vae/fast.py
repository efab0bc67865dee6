"""The VAE with fewer passes over memory: as published, most of its time on a GPU goes to copying, not to convolutions.

The modules that take the time are replaced, weights and all, by ones that speak diffusers' protocol: frames ``[1, c, t, h, w]``, a list
of caches and the index of the next. Inside, frames are ``[t, h, w, c]``, and a causal convolution over time and space is one over space
of frames that are beside the two before them: on a Hopper card cuDNN runs that up to twice as fast.
"""

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample, WanResidualBlock, WanRMS_norm
from torch import nn

Caches = list[Any] | None
FIRST_GROUP = "Rep"
"""What diffusers leaves in a cache after the first group, which is not made longer."""


def quicken(vae: Any, operations: ModuleType) -> None:
    """Prepares ``vae`` in place. ``operations``: `unfused`, or `fused` on a GPU."""
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
    """``WanCausalConv3d`` of three frames, without its bias: for frames that `unfold_time` has put side by side."""

    def __init__(self, conv: WanCausalConv3d) -> None:
        super().__init__()
        weight = conv.weight.permute(0, 2, 1, 3, 4).flatten(1, 2)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter(_bias(conv), requires_grad=False)
        self._padding = (weight.shape[2] // 2, weight.shape[3] // 2)

    def forward(self, unfolded: torch.Tensor) -> torch.Tensor:
        """``[t, h, w, 3 c]`` -> ``[t, h, w, d]``."""
        return F.conv2d(unfolded.permute(0, 3, 1, 2), self.weight, padding=self._padding).permute(0, 2, 3, 1).contiguous()


class ResidualBlock(nn.Module):
    """``WanResidualBlock``."""

    def __init__(self, block: WanResidualBlock, operations: ModuleType) -> None:
        super().__init__()
        self.conv1, self.conv2 = TimeConv(block.conv1), TimeConv(block.conv2)
        self.gain1, self.gain2 = (nn.Buffer(_gain(norm)) for norm in (block.norm1, block.norm2))
        self.shortcut: nn.Linear | None = None
        if isinstance(block.conv_shortcut, WanCausalConv3d):
            self.shortcut = _linear(block.conv_shortcut)
        self._operations = operations

    def forward(self, x: torch.Tensor, feat_cache: Caches = None, feat_idx: list[int] | None = None) -> torch.Tensor:
        """See the module."""
        frames = _frames(x)
        residual = frames if self.shortcut is None else self.shortcut(frames)
        caches = _Caches(feat_cache, feat_idx)
        unfolded = caches.unfold(self._operations, frames, self.gain1, None)
        unfolded = caches.unfold(self._operations, self.conv1(unfolded), self.gain2, self.conv1.bias)
        return _video(self._operations.add_(self.conv2(unfolded), self.conv2.bias, residual))


class Upsample(nn.Module):
    """``WanResample`` of the decoder: twice the size, and in its 3D modes twice the frames of all groups but the first."""

    def __init__(self, resample: WanResample, operations: ModuleType) -> None:
        super().__init__()
        conv = resample.resample[1]
        self.weight = nn.Parameter(conv.weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
        self.time_conv = TimeConv(resample.time_conv) if resample.mode == "upsample3d" else None
        self._operations = operations

    def forward(self, x: torch.Tensor, feat_cache: Caches = None, feat_idx: list[int] | None = None) -> torch.Tensor:
        """See the module."""
        frames, bias = _frames(x), None
        if self.time_conv is not None and feat_cache is not None:
            caches = _Caches(feat_cache, feat_idx)
            if caches.is_first_group():
                caches.leave(FIRST_GROUP)
            else:
                frames = self.time_conv(caches.unfold(self._operations, frames, None, None))
                bias = self.time_conv.bias
        large = self._operations.enlarge(frames.view(*frames.shape[:3], -1, x.shape[1]), bias)
        result = F.conv2d(large.permute(0, 3, 1, 2), self.weight, padding=1).permute(0, 2, 3, 1).contiguous()
        return _video(self._operations.add_(result, self.bias, None))


class NormConv(nn.Module):
    """The end of an encoder or decoder: norm, SiLU and convolution. The cache holds frames before the norm, as diffusers keeps it."""

    def __init__(self, norm: WanRMS_norm, conv: WanCausalConv3d, operations: ModuleType) -> None:
        super().__init__()
        self.conv = TimeConv(conv)
        self.gain = nn.Buffer(_gain(norm))
        self._operations = operations

    def forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        """``x`` ``[1, c, t, h, w]``; ``cache_x`` the one or two frames before it."""
        before = None
        if cache_x is not None:
            seen = self._operations.norm_silu(_frames(cache_x), self.gain)
            before = seen if len(seen) == 2 else torch.cat([torch.zeros_like(seen), seen])
        unfolded, _ = self._operations.unfold_time(_frames(x), before, self.gain, None)
        return _video(self._operations.add_(self.conv(unfolded), self.conv.bias, None))


class _Caches:
    """Diffusers' list of caches, one used up by each causal convolution."""

    def __init__(self, caches: Caches, index: list[int] | None) -> None:
        self._caches, self._index = caches, index or [0]

    def is_first_group(self) -> bool:
        """Whether nothing was left here yet."""
        return self._caches is not None and self._caches[self._index[0]] is None

    def leave(self, value: Any) -> None:
        """For the next group; goes on to the next cache."""
        if self._caches is not None:
            self._caches[self._index[0]] = value
            self._index[0] += 1

    def unfold(
        self, operations: ModuleType, frames: torch.Tensor, gain: torch.Tensor | None, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """`unfold_time` with the frames that the group before left here."""
        before = None if self._caches is None else self._caches[self._index[0]]
        unfolded, last = operations.unfold_time(frames, None if before is FIRST_GROUP else before, gain, bias)
        self.leave(last)
        assert isinstance(unfolded, torch.Tensor)
        return unfolded


def _frames(x: torch.Tensor) -> torch.Tensor:
    """``[1, c, t, h, w]`` -> ``[t, h, w, c]``: nothing is copied where channels are last in memory, as these modules leave them."""
    if len(x) != 1:
        raise ValueError(f"the quick VAE takes one video at a time, not {len(x)}")
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
