"""Decodes bands of the frames, each on a device of its own.

A device computes the rows that its band depends on: before a convolution over three rows, one more
on each side where the band was cut. What the cut made wrong is left off again, so that the bands
together are the frames of the whole, and devices exchange nothing. The layers before the first
upsampling, whose attention sees the whole frame, run on every device; they take little time.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from deployments.video.vae.decode_stream import decode_stream

Rows = tuple[int, int]
"""The first row, and the one after the last."""


def decode_bands(vaes: Sequence[Any], latents: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Yield groups of frames as bands from top to bottom, ``[1, 3, n, rows, width]`` in -1..1.

    ``vaes`` are copies of a VAE, each on its device; ``latents`` are as for ``decode_stream``. All
    devices are given their work before the first band is yielded.
    """
    height = latents.shape[3]
    count, scale = len(vaes), 1 << _doublings(vaes[0].decoder.up_blocks)
    streams = []
    for rank, vae in enumerate(vaes):
        rows = height * rank // count * scale, height * (rank + 1) // count * scale
        streams.append(decode_stream(band_view(vae, rows, height), latents.to(vae.device)))
    for _ in range(latents.shape[2]):
        group = []
        for vae, stream in zip(vaes, streams, strict=True):
            with torch.cuda.device(vae.device if vae.device.type == "cuda" else -1):  # for Triton's kernels
                group.append(next(stream))
        yield group


def band_view(vae: Any, rows: Rows, height: int) -> Any:
    """Return a view of ``vae`` whose decoder returns ``rows`` only, of latents of ``height``."""
    decoder = copy.copy(vae.decoder)
    decoder._modules = dict(vae.decoder._modules)
    blocks = [*vae.decoder.up_blocks]
    needed = [_grown(rows, 1, height << _doublings(blocks))]
    """The rows before each block, and before the last convolution."""
    for number, block in reversed([*enumerate(blocks)]):
        needed.insert(0, _input_rows(block, needed[0], height << _doublings(blocks[:number])))
    bands = [
        _Band(block, start=before[0] << _doublings([block]), rows=after)
        for block, before, after in zip(blocks, needed, needed[1:], strict=False)
    ]
    bands[0].first = slice(*needed[0])
    decoder._modules["up_blocks"] = nn.ModuleList(bands)
    decoder._modules["conv_out"] = _Band(vae.decoder.conv_out, start=needed[-1][0], rows=rows)
    view = copy.copy(vae)
    view._modules = {**vae._modules, "decoder": decoder}
    return view


def _doublings(blocks: Iterable[Any]) -> int:
    """Return how often ``blocks`` double the number of rows."""
    return sum(block.upsamplers is not None for block in blocks)


def _input_rows(block: Any, rows: Rows, height: int) -> Rows:
    """Return the rows, of ``height``, that ``block`` needs in order to return ``rows``."""
    first, end = rows
    if block.upsamplers is not None:  # rows are doubled, then a convolution sees three of them
        first, end = (first - 1) // 2, end // 2 + 1
    return _grown((first, end), 2 * len(block.resnets), height)


def _grown(rows: Rows, by: int, height: int) -> Rows:
    return max(rows[0] - by, 0), min(rows[1] + by, height)


class _Band(nn.Module):
    """A module of the decoder, of whose result only some rows are kept.

    ``start`` is the number of the first row of its result, and ``rows`` are those that are kept.
    """

    def __init__(self, module: Any, *, start: int, rows: Rows) -> None:
        super().__init__()
        self.module = module
        self.first: slice | None = None
        """The rows that it gets of an input that has all."""
        self._kept = slice(rows[0] - start, rows[1] - start)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Map ``[1, c, t, h, w]`` to the band's rows of the result."""
        if self.first is not None:
            x = x[:, :, :, self.first]
        result: torch.Tensor = self.module(x, *args, **kwargs)
        return result[:, :, :, self._kept]
