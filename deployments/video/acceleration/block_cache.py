"""First-block cache: where a step's first block does almost what it did before, what the others made of it then is used again.

The rule is that of ParaAttention's First Block Cache, as in diffusers' ``FirstBlockCacheConfig``. There the state hangs on the model;
here it belongs to one request: each gets views of the transformers, which share their weights. It costs exactness: off unless asked for.
"""

import copy
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformerBlock
from torch import nn

from deployments.video.kernels.block import FastVaceBlock


class BlockCache:
    """One request's cache. ``threshold``: mean change of the first block's contribution, as a share of it, under which it is reused."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.passes = 0
        """Forward passes so far."""
        self.reused = 0
        """Those that ran the first block only."""
        self._views: dict[int, tuple[Any, Any]] = {}

    def view(self, transformer: Any, branch: int) -> Any:
        """``transformer`` as it is to be called: with a memory for each ``branch`` (with the prompt, without)."""
        known, view = self._views.get(branch, (None, None))
        if known is not transformer:  # of two experts the first does not come back: what it left is let go
            view = _view(transformer, self)
            self._views[branch] = (transformer, view)
        return view

    def __str__(self) -> str:
        return f"cache; threshold={self.threshold:g}; reused={self.reused}/{self.passes}"


class _Memory:
    """Of one branch: what the first block added, and what the others added to its result, the last time that all ran."""

    def __init__(self, cache: BlockCache, first: nn.Module) -> None:
        self._cache = cache
        self._first = first
        self._added: torch.Tensor | None = None
        self.head: torch.Tensor | None = None
        """This pass's result of the first block."""
        self.rest: torch.Tensor | None = None
        self.reuses = False

    def begin(self, hidden: torch.Tensor, *others: Any) -> None:
        """Runs the first block and decides on the rest of this pass."""
        self.head = self._first(hidden, *others)
        added = self.head - hidden
        self.reuses = self._added is not None and self._change(added, self._added) <= self._cache.threshold
        if not self.reuses:
            self._added = added
        self._cache.passes += 1
        self._cache.reused += self.reuses

    @staticmethod
    def _change(now: torch.Tensor, before: torch.Tensor) -> float:
        return ((now - before).abs().mean() / before.abs().mean()).item()

    def take_head(self) -> torch.Tensor:
        """The first block's result, given away: it is large."""
        head, self.head = self.head, None
        assert head is not None
        return head


class _First(nn.Module):
    def __init__(self, memory: _Memory, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self._memory = memory

    def forward(self, hidden: torch.Tensor, *others: Any) -> torch.Tensor:
        if self._memory.head is None:  # else a control block, which comes before, has begun
            self._memory.begin(hidden, *others)
        assert self._memory.head is not None
        return self._memory.head


class _Middle(nn.Module):
    def __init__(self, memory: _Memory, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self._memory = memory

    def forward(self, hidden: torch.Tensor, *others: Any) -> torch.Tensor:
        result: torch.Tensor = hidden if self._memory.reuses else self.block(hidden, *others)
        return result


class _Last(_Middle):
    def forward(self, hidden: torch.Tensor, *others: Any) -> torch.Tensor:
        head = self._memory.take_head()
        if self._memory.reuses:
            assert self._memory.rest is not None
            return head + self._memory.rest
        result: torch.Tensor = self.block(hidden, *others)
        self._memory.rest = result - head
        return result


class _Control(nn.Module):
    """A block of VACE's control stream. What those add to the main stream is part of what is reused."""

    def __init__(self, memory: _Memory, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self._memory = memory

    def forward(
        self, hidden: torch.Tensor, text: torch.Tensor, control: torch.Tensor, *others: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        if self._memory.head is None:
            self._memory.begin(hidden, text, *others)
        if self._memory.reuses:
            return hidden.new_zeros(()), control
        result: tuple[torch.Tensor | None, torch.Tensor] = self.block(hidden, text, control, *others)
        return result


def _view(transformer: Any, cache: BlockCache) -> Any:
    first, *middle, last = transformer.blocks
    if len(transformer.blocks) - 1 in (getattr(transformer.config, "vace_layers", None) or ()):
        raise ValueError("a control block adds to the last block's result: that cannot be reused")
    memory = _Memory(cache, first)
    view = copy.copy(transformer)
    view._modules = dict(transformer._modules)
    view._modules["blocks"] = nn.ModuleList(
        [_First(memory, first), *(_Middle(memory, block) for block in middle), _Last(memory, last)]
    )
    if hasattr(transformer, "vace_blocks"):
        assert all(isinstance(block, WanVACETransformerBlock | FastVaceBlock) for block in transformer.vace_blocks)
        view._modules["vace_blocks"] = nn.ModuleList([_Control(memory, block) for block in transformer.vace_blocks])
    return view


def cache_bytes(config: Any, width: int, height: int, num_frames: int) -> int:
    """Bytes that the memories of a video hold, and what deciding takes: float16 or bfloat16."""
    tokens = (1 + (num_frames - 1) // 4) * width * height // 256
    held, deciding = 4, 3
    width_bytes: int = 2 * config.num_attention_heads * config.attention_head_dim
    return (held + deciding) * tokens * width_bytes
