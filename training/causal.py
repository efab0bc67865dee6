"""Runs a Wan VAE over a whole clip at once, for training.

diffusers' `AutoencoderKLWan` works in chunks of four frames, each of which waits for the one
before. Its convolutions are causal, so one pass over all frames gives the same numbers if the three
places that treat the first frame differently still do so. That pass is many times faster on a GPU.
A test compares it with diffusers.
"""

from functools import partial

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample
from torch import Tensor


def unroll(vae: AutoencoderKLWan) -> None:
    """Change ``vae`` so that `encode_clip` and `decode_clip` work on it.

    Its own `encode` and `decode` do not work any more.
    """
    for module in vae.modules():
        if isinstance(module, WanResample) and module.mode in ("upsample3d", "downsample3d"):
            module.forward = partial(_up if module.mode == "upsample3d" else _down, module)


def encode_clip(vae: AutoencoderKLWan, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log variance of the latents of ``[n, 3, 1 + 4k, h, w]``.

    Each is ``[n, c, 1 + k, h / 8, w / 8]``.
    """
    mean, log_variance = vae.quant_conv(vae.encoder(clip)).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode_clip(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Return the clip of latents that are not normalised; it is not clamped."""
    clip = vae.decoder(vae.post_quant_conv(latents))
    assert isinstance(clip, Tensor)
    return clip


def _per_frame(layer: torch.nn.Module, x: Tensor) -> Tensor:
    n, c, t, h, w = x.shape
    y: Tensor = layer(x.transpose(1, 2).reshape(n * t, c, h, w))
    return y.view(n, t, *y.shape[1:]).transpose(1, 2)


def _up(resample: WanResample, x: Tensor, feat_cache: None = None, feat_idx: object = None) -> Tensor:
    """Turn each frame except the first into two.

    The temporal convolution of the others does not see the first frame.
    """
    first, rest = x[:, :, :1], x[:, :, 1:]
    n, c, t, h, w = rest.shape
    if t:
        doubled = resample.time_conv(rest).view(n, 2, c, t, h, w).permute(0, 2, 3, 1, 4, 5).reshape(n, c, 2 * t, h, w)
        x = torch.cat([first, doubled], dim=2)
    return _per_frame(resample.resample, x)


def _down(resample: WanResample, x: Tensor, feat_cache: None = None, feat_idx: object = None) -> Tensor:
    """Keep the first frame and turn every two of the others into one."""
    x = _per_frame(resample.resample, x)
    if x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], resample.time_conv(x)], dim=2)
