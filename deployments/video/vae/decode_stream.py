"""Decodes Wan latents in groups of frames as the causal VAE releases them: 1 frame, then 4 each.

The result equals ``AutoencoderKLWan.decode`` of the whole, bit for bit. The feature cache is a
local one, because another request's encode would reset the VAE's.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from deployments.errors import CheckpointRefused, NotFinite
from deployments.wire import Frames


def denormalise(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return latents ``[1, c, t, h, w]``, scaled and shifted for the VAE's decoder.

    The result has the dtype and device of ``vae``.
    """
    shape = (1, vae.config.z_dim, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape).to(vae.device, vae.dtype)
    std = torch.tensor(vae.config.latents_std).view(shape).to(vae.device, vae.dtype)
    # Divides by the reciprocal as diffusers does: multiplying would round differently.
    return latents.to(vae.device, vae.dtype) / (1.0 / std) + mean


@torch.no_grad()
def decode_stream(vae: Any, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield groups of frames ``[1, 3, n, height, width]`` in -1..1.

    ``latents`` are denormalised, ``[1, c, t, h, w]``. ``n`` is 1 for the first group and 4 for the
    others. Each group is computed when it is asked for. Raises ``CheckpointRefused`` for a VAE with
    tiling or with a patch size.
    """
    if vae.use_tiling or vae.config.patch_size is not None:
        raise CheckpointRefused("a VAE with tiling or `patch_size` cannot be decoded as a stream; use the Wan 2.1 VAE")
    cache: list[torch.Tensor | None] = [None] * vae._cached_conv_counts["decoder"]
    x = vae.post_quant_conv(latents)
    for i in range(x.shape[2]):
        group = vae.decoder(x[:, :, i : i + 1], feat_cache=cache, feat_idx=[0], first_chunk=i == 0)
        yield torch.clamp(group, min=-1.0, max=1.0)


def to_host(groups: Iterator[Sequence[torch.Tensor]]) -> Iterator[Frames]:
    """Yield uint8 RGB frames ``[n, height, width, 3]`` in host memory for each group.

    A group is made of bands from top to bottom, each ``[1, 3, n, rows, width]`` in -1..1. The first
    group is copied from a GPU at once; each later one is copied while the next is being decoded.
    Raises ``NotFinite`` for a group with NaN, which would be black.
    """
    last: list[_HostCopy] = []
    for number, group in enumerate(groups):
        copies = [_HostCopy(to_pixels(band), band.isfinite().all()) for band in group]
        if number == 0 or not group[0].is_cuda:
            yield _join(copies)
            continue
        if last:
            yield _join(last)
        last = copies
    if last:
        yield _join(last)


def to_pixels(group: torch.Tensor) -> torch.Tensor:
    """Return a group in -1..1 as contiguous uint8 RGB ``[n, height, width, 3]``."""
    pixels = ((group[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(1, 2, 3, 0).contiguous()


class _HostCopy:
    """Pixels on their way to host memory; those of a CPU are there already.

    ``finite`` says, on the same device, whether all values were finite before they became pixels.
    """

    def __init__(self, pixels: torch.Tensor, finite: torch.Tensor) -> None:
        self._host, self._copied, self._finite = pixels, None, finite
        if pixels.is_cuda:
            self._host = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
            self._finite = torch.empty((), dtype=torch.bool, pin_memory=True)
            with torch.cuda.device(pixels.device):
                self._host.copy_(pixels, non_blocking=True)
                self._finite.copy_(finite, non_blocking=True)
                self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
                self._copied.record()

    def wait(self) -> Frames:
        """Return the pixels once they are complete."""
        if self._copied is not None:
            self._copied.synchronize()
        if not bool(self._finite):
            raise NotFinite("the VAE has computed NaN or infinity in place of frames; try another seed")
        frames: Frames = self._host.numpy()
        return frames


def _join(bands: Sequence[_HostCopy]) -> Frames:
    parts = [band.wait() for band in bands]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
