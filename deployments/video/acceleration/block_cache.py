"""The first-block cache: skips blocks in steps where the first block changes little.

If the first block contributes almost what it did in an earlier step, the contribution of the other
blocks in that step is reused. The rule is that of ParaAttention's First Block Cache, as in
diffusers' ``FirstBlockCacheConfig``. There the state belongs to the model; here it belongs to one
request, whose views of the transformers share their weights.
"""

import copy
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformerBlock
from torch import nn

from deployments.video.kernels.block import FastVaceBlock
from deployments.video.sampling.guidance import Branch
from deployments.wire import VideoRequest


class BlockCache:
    """The cache of one request.

    ``threshold`` is the mean change of the first block's contribution, relative to its mean size,
    up to which the other blocks' contribution is reused.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.passes = 0
        """Forward passes so far."""
        self.reused = 0
        """Forward passes that ran the first block only."""
        self._views: dict[Branch, tuple[Any, Any]] = {}

    def view(self, transformer: Any, branch: Branch) -> Any:
        """Return what to call instead of ``transformer``; each branch has its own state."""
        known, view = self._views.get(branch, (None, None))
        # The first of two experts does not run again, so its state is dropped.
        if known is not transformer:
            view = _cached_view(transformer, self)
            self._views[branch] = (transformer, view)
        return view

    def describe(self) -> str:
        """Return the threshold and how many passes were reused."""
        return f"cache; threshold={self.threshold:g}; reused={self.reused}/{self.passes}"


class _State:
    """The state of one branch.

    It holds what the first block contributed, and what the others added to its output, in the last
    pass that ran them all.
    """

    def __init__(self, cache: BlockCache, first: nn.Module) -> None:
        self._cache = cache
        self._first = first
        self._contribution: torch.Tensor | None = None
        self.head: torch.Tensor | None = None
        """The first block's output in the current pass."""
        self.rest: torch.Tensor | None = None
        """What the other blocks added."""
        self.reuses = False
        """Whether the current pass reuses ``rest``."""

    def begin(self, hidden: torch.Tensor, *others: Any) -> None:
        """Run the first block, and decide whether this pass runs the others."""
        self.head = self._first(hidden, *others)
        contribution = self.head - hidden
        self.reuses = (
            self._contribution is not None and _relative_change(contribution, self._contribution) <= self._cache.threshold
        )
        if not self.reuses:
            self._contribution = contribution
        self._cache.passes += 1
        self._cache.reused += self.reuses

    def take_head(self) -> torch.Tensor:
        """Return the first block's output and drop the reference to it, because it is large."""
        head, self.head = self.head, None
        assert head is not None
        return head


def _relative_change(now: torch.Tensor, before: torch.Tensor) -> float:
    return ((now - before).abs().mean() / before.abs().mean()).item()


class _FirstBlock(nn.Module):
    def __init__(self, state: _State, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self._state = state

    def forward(self, hidden: torch.Tensor, *others: Any) -> torch.Tensor:
        # Otherwise a control block, which runs earlier, has begun the pass.
        if self._state.head is None:
            self._state.begin(hidden, *others)
        assert self._state.head is not None
        return self._state.head


class _MiddleBlock(nn.Module):
    def __init__(self, state: _State, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self._state = state

    def forward(self, hidden: torch.Tensor, *others: Any) -> torch.Tensor:
        result: torch.Tensor = hidden if self._state.reuses else self.block(hidden, *others)
        return result


class _LastBlock(_MiddleBlock):
    def forward(self, hidden: torch.Tensor, *others: Any) -> torch.Tensor:
        head = self._state.take_head()
        if self._state.reuses:
            assert self._state.rest is not None
            return head + self._state.rest
        result: torch.Tensor = self.block(hidden, *others)
        self._state.rest = result - head
        return result


class _ControlBlock(nn.Module):
    """A control block of VACE; what it adds to the main stream is reused too."""

    def __init__(self, state: _State, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self._state = state

    def forward(
        self, hidden: torch.Tensor, text: torch.Tensor, control: torch.Tensor, *others: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        if self._state.head is None:
            self._state.begin(hidden, text, *others)
        if self._state.reuses:
            return hidden.new_zeros(()), control
        result: tuple[torch.Tensor | None, torch.Tensor] = self.block(hidden, text, control, *others)
        return result


def _cached_view(transformer: Any, cache: BlockCache) -> Any:
    """Return a shallow copy of ``transformer`` whose blocks use a new state of ``cache``."""
    first, *middle, last = transformer.blocks
    if len(transformer.blocks) - 1 in (getattr(transformer.config, "vace_layers", None) or ()):
        raise ValueError("a control block adds to the last block's output, which the first-block cache cannot reuse")
    state = _State(cache, first)
    view = copy.copy(transformer)
    view._modules = dict(transformer._modules)
    view._modules["blocks"] = nn.ModuleList(
        [_FirstBlock(state, first), *(_MiddleBlock(state, block) for block in middle), _LastBlock(state, last)]
    )
    if hasattr(transformer, "vace_blocks"):
        assert all(isinstance(block, WanVACETransformerBlock | FastVaceBlock) for block in transformer.vace_blocks)
        view._modules["vace_blocks"] = nn.ModuleList([_ControlBlock(state, block) for block in transformer.vace_blocks])
    return view


def cache_bytes(config: Any, request: VideoRequest) -> int:
    """Return the bytes that the cache of ``request`` needs, in float16 or bfloat16.

    They are what the states of both branches hold and what the decision takes. ``config`` is the
    transformer's.
    """
    tokens = (1 + (request.num_frames - 1) // 4) * request.width * request.height // 256
    held, deciding = 4, 3
    token_bytes: int = 2 * config.num_attention_heads * config.attention_head_dim
    return (held + deciding) * tokens * token_bytes
