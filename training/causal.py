"""A Wan VAE over a whole clip at once, for training.

diffusers' `AutoencoderKLWan` works in chunks of four frames, each waiting for the one before. Its convolutions are causal, so the
same numbers come from one pass over all frames, if the three places that treat the first frame apart still do: that pass is many
times faster on a GPU. A test holds it to diffusers' own.
"""

from functools import partial

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample
from torch import Tensor


def unroll(vae: AutoencoderKLWan) -> None:
    """Changes ``vae`` for good: `encode_clip` and `decode_clip` work on it; its own `encode` and `decode` no longer do."""
    for module in vae.modules():
        if isinstance(module, WanResample) and module.mode in ("upsample3d", "downsample3d"):
            module.forward = partial(_up if module.mode == "upsample3d" else _down, module)


def encode_clip(vae: AutoencoderKLWan, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the latents of ``[n, 3, 1 + 4k, h, w]``: each ``[n, c, 1 + k, h / 8, w / 8]``."""
    mean, log_variance = vae.quant_conv(vae.encoder(clip)).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode_clip(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """The clip of (not normalised) latents, not clamped."""
    clip = vae.decoder(vae.post_quant_conv(latents))
    assert isinstance(clip, Tensor)
    return clip


def _per_frame(layer: torch.nn.Module, x: Tensor) -> Tensor:
    n, c, t, h, w = x.shape
    y: Tensor = layer(x.transpose(1, 2).reshape(n * t, c, h, w))
    return y.view(n, t, *y.shape[1:]).transpose(1, 2)


def _up(resample: WanResample, x: Tensor, feat_cache: None = None, feat_idx: object = None) -> Tensor:
    """Each frame but the first becomes two; the first is not seen by the others' temporal convolution."""
    first, rest = x[:, :, :1], x[:, :, 1:]
    n, c, t, h, w = rest.shape
    if t:
        doubled = resample.time_conv(rest).view(n, 2, c, t, h, w).permute(0, 2, 3, 1, 4, 5).reshape(n, c, 2 * t, h, w)
        x = torch.cat([first, doubled], dim=2)
    return _per_frame(resample.resample, x)


def _down(resample: WanResample, x: Tensor, feat_cache: None = None, feat_idx: object = None) -> Tensor:
    """The first frame stays; of the others two become one."""
    x = _per_frame(resample.resample, x)
    if x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], resample.time_conv(x)], dim=2)
