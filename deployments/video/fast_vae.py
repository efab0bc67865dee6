"""The VAE's decoder with fewer passes over memory: as published, most of its time on a GPU goes to copying, not to convolutions.

Three kinds of modules are replaced, weights and all: norm and SiLU become one compiled pass in float32 whatever the VAE's type,
convolutions pad space by themselves, and upsampling does not pass through float32 (it only repeats pixels).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResidualBlock, WanRMS_norm, WanUpsample
from torch import nn


def quicken(vae: Any, *, compiled: bool) -> None:
    """Prepares ``vae`` in place. ``compiled``: on a GPU."""
    for module in vae.modules():
        if isinstance(module, WanResidualBlock):
            for name in ("norm1", "norm2"):
                setattr(module, name, NormSilu(getattr(module, name), compiled=compiled))
            module.nonlinearity = nn.Identity()
    decoder = vae.decoder
    decoder.norm_out = NormSilu(decoder.norm_out, compiled=compiled)
    decoder.nonlinearity = nn.Identity()
    for module in [*vae.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, WanCausalConv3d):
                setattr(module, name, CausalConv(child))
            elif isinstance(child, WanUpsample):
                setattr(module, name, nn.Upsample(scale_factor=child.scale_factor, mode="nearest-exact"))
    for module in vae.modules():  # channels last is how a GPU's convolutions want it: nothing is turned around between them
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


class NormSilu(nn.Module):
    """``WanRMS_norm`` over channels, then SiLU; computed in float32, ``[n, c, t, h, w]`` in and out."""

    def __init__(self, norm: WanRMS_norm, *, compiled: bool) -> None:
        super().__init__()
        self.gamma = norm.gamma
        self._scale = norm.scale
        self._activate = _compiled(norm.gamma.numel()) if compiled else _norm_silu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The activation, channels last in memory."""
        pixels = x.permute(0, 2, 3, 4, 1)
        result = self._activate(pixels.reshape(-1), self.gamma.flatten() * self._scale)
        return result.view(pixels.shape).permute(0, 4, 1, 2, 3)


def _norm_silu(flat: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    pixels = flat.view(-1, gain.shape[0]).float()
    return F.silu(F.normalize(pixels, dim=1) * gain.float()).to(flat.dtype)


@cache
def _compiled(channels: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """``_norm_silu`` for one number of channels, which the compiler then knows, and for any number of pixels."""

    def norm_silu(flat: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return _norm_silu(flat, gain.view(channels))

    return torch.compile(norm_silu, dynamic=True)


class CausalConv(nn.Conv3d):
    """``WanCausalConv3d``: space is padded by the convolution itself, time by the cache or by zeros before the first frame."""

    def __init__(self, conv: WanCausalConv3d) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({k: v for k, v in conv.__dict__.items() if k not in ("_parameters", "_padding")})
        self._parameters = dict(conv._parameters)
        left, _, top, _, self._before, _ = conv._padding
        self.padding = (0, top, left)

    def forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        """``x`` ``[n, c, t, h, w]``; ``cache_x`` the frames before it."""
        before = self._before
        if cache_x is not None and before > 0:
            x = torch.cat([cache_x, x], dim=2)
            before -= cache_x.shape[2]
        if before > 0:
            x = F.pad(x, (0, 0, 0, 0, before, 0))
        return super().forward(x)
