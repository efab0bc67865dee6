"""Sequence parallelism after DeepSpeed-Ulysses: a forward pass whose tokens are shared by a team.

Each member runs all layers for its part of the tokens. Only self-attention needs the others: for it
the members exchange tokens for heads, so that each has all tokens of some heads, and afterwards
back. Tokens and heads need not be divisible by the number of members.
"""

import copy
from math import isqrt
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformerBlock
from torch import nn

from deployments.video.kernels import reference
from deployments.video.kernels.attention import Attention, native_attention
from deployments.video.kernels.block import FastBlock, FastVaceBlock
from deployments.video.parallel.team import Member

VALUES_PER_DEVICE = 10_000_000
"""The values of a block's output, times the square of the devices, from which a split is faster.
Over two H100 a pass with 50 million values was 1.95 times as fast, and one with 22 million was not
faster."""


def sequence_view(transformer: Any, member: Member) -> Any:
    """Return what ``member`` calls instead of ``transformer``, whose weights it shares.

    All members are called with the same inputs. The first one returns the result of the whole, and
    the others a tensor of its shape without meaning. Raises ``ValueError`` for a team with more
    members than heads.
    """
    require_heads(transformer, member.size)
    view = copy.copy(transformer)
    view._modules = dict(transformer._modules)
    view._modules["rope"] = _Rotary(transformer.rope, member)
    view._modules["proj_out"] = _Output(transformer.proj_out, member)
    for name in ("patch_embedding", "vace_patch_embedding"):
        if name in view._modules:
            view._modules[name] = _Tokens(view._modules[name], member)
    for name in ("blocks", "vace_blocks"):
        if name in view._modules:
            view._modules[name] = nn.ModuleList([_block(block, member) for block in view._modules[name]])
    return view


def worthwhile_devices(tokens: int, width: int) -> int:
    """Return over how many devices a pass over so many tokens is worth splitting.

    Its kernels are launched by one CPU thread at a time, for one device after the other. With every
    device there is more to launch, and each has less to compute.
    """
    return max(1, isqrt(tokens * width // VALUES_PER_DEVICE))


def require_heads(transformer: Any, count: int) -> None:
    """Raise ``ValueError`` if ``transformer`` has fewer heads than ``count``, the devices."""
    if (heads := transformer.config.num_attention_heads) < count:
        raise ValueError(f"{heads} heads of attention cannot be shared by {count} devices; use at most {heads}")


class _Tokens(nn.Module):
    """A patch embedding that returns the member's tokens only."""

    def __init__(self, embedding: nn.Module, member: Member) -> None:
        super().__init__()
        self.embedding = embedding
        self._member = member

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """Map ``[b, channels, t, h, w]`` to ``[b, c, n]``, where the whole has more tokens."""
        tokens: torch.Tensor = self.embedding(video).flatten(2)
        return tokens[:, :, self._member.span(tokens.shape[2])]


class _Rotary(nn.Module):
    """A rotary embedding for the member's tokens only."""

    def __init__(self, rope: nn.Module, member: Member) -> None:
        super().__init__()
        self.rope = rope
        self._member = member

    def forward(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines ``[1, n, 1, head]``."""
        cosines, sines = self.rope(video)
        span = self._member.span(cosines.shape[1])
        return cosines[:, span], sines[:, span]


class _Output(nn.Module):
    """The last projection, after which the first member collects the tokens of all."""

    def __init__(self, projection: nn.Module, member: Member) -> None:
        super().__init__()
        self.projection = projection
        self._member = member

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[b, n, c]`` to the ``[b, all tokens, d]`` of the whole team."""
        with self._member.share(self.projection(x)) as everyone:
            parts = [part for (part,) in everyone]
            whole = parts[0].new_empty(
                (len(x), sum(part.shape[1] for part in parts), parts[0].shape[2]), device=self._member.device
            )
            if self._member.rank == 0:
                start = 0
                for part in parts:
                    whole[:, start : start + part.shape[1]].copy_(part, non_blocking=True)
                    start += part.shape[1]
        return whole


class _SharedAttention:
    """Self-attention of a team; each member computes it for its heads over all tokens."""

    def __init__(self, attention: Attention, member: Member) -> None:
        self._attention = attention
        self._member = member

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        member, total_heads = self._member, query.shape[1]
        heads = member.span(total_heads)
        # Tensors cross as [b, n, heads, head], which is how they are in memory.
        with member.share(*(part.transpose(1, 2) for part in (query, key, value))) as everyone:
            tokens = [theirs[0].shape[1] for theirs in everyone]
            starts = [sum(tokens[:rank]) for rank in range(member.size)]
            inputs = []
            for number in range(3):
                own = everyone[member.rank][number]
                whole = own.new_empty((len(own), sum(tokens), heads.stop - heads.start, own.shape[3]))
                for start, theirs in zip(starts, everyone, strict=True):
                    part = theirs[number]
                    _copy(whole[:, start : start + part.shape[1]], part[:, :, heads])
                inputs.append(whole.transpose(1, 2))
        attended = self._attention(*inputs).transpose(1, 2)
        rows = slice(starts[member.rank], starts[member.rank] + tokens[member.rank])
        result = attended.new_empty((len(attended), tokens[member.rank], total_heads, attended.shape[3]))
        with member.share(attended) as outputs:
            for rank, (part,) in enumerate(outputs):
                _copy(result[:, :, member.span(total_heads, rank)], part[:, rows])
        return result.transpose(1, 2)


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy between devices, 16 bytes at a time where rows allow it.

    The copy of slices is a kernel that moves an element per thread, and 2 bytes are far too few.
    """
    if target.shape[-1] * target.element_size() % 16 == 0 and target.stride(-1) == source.stride(-1) == 1:
        target, source = target.view(torch.complex128), source.view(torch.complex128)
    target.copy_(source, non_blocking=True)


def _block(block: Any, member: Member) -> FastBlock:
    """Return a fast block with shared self-attention; on a CPU the blocks are diffusers' own."""
    if not isinstance(block, FastBlock):
        fast_class = FastVaceBlock if isinstance(block, WanVACETransformerBlock) else FastBlock
        block = fast_class(block, reference, native_attention)
    shared: FastBlock = copy.copy(block)
    shared.self_attention = _SharedAttention(block.self_attention, member)
    return shared
