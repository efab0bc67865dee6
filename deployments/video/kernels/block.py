"""Wan's transformer block with fewer passes over memory: norms, modulation, gates and rotation are one pass each, not seven.

Diffusers' arithmetic in diffusers' order; what is between two matrix products stays in float32 where diffusers rounds in between.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from diffusers.models.normalization import FP32LayerNorm
from torch import nn

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Query, key and value ``[b, heads, n, head]`` -> the same."""
Rotary = tuple[torch.Tensor, torch.Tensor]


def cudnn_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Called by name: PyTorch's switch between attentions is global, and another thread may be setting it."""
    result: torch.Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, False)[0]
    return result


def native_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """What PyTorch chooses."""
    return F.scaled_dot_product_attention(query, key, value)


class FastBlock(nn.Module):
    """``WanTransformerBlock``. Its linear layers are called as they are: plain or quantised."""

    def __init__(self, block: Any, operations: ModuleType, attention: Attention) -> None:
        super().__init__()
        if not isinstance(block.norm2, FP32LayerNorm):
            raise ValueError("a block without a norm before its cross-attention")
        self.block = block
        self._operations = operations
        self._attention = attention

    def forward(self, x: torch.Tensor, text: torch.Tensor, modulation: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        """``x`` ``[b, n, c]``; ``text`` ``[b, m, c]``, an image's embeddings first where there are such; ``modulation`` ``[b, 6, c]``."""
        block, operations = self.block, self._operations
        x = x.contiguous()  # diffusers gives a VACE model's first block a transposed one
        table = block.scale_shift_table.float() + modulation.float()
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table.unbind(1)
        normed = operations.residual_norm(x, None, None, 1 + scale, shift, block.norm1.eps)[1]
        update = self._attend(block.attn1, normed, normed, rotary)
        affine = block.norm2.weight.float()[None], block.norm2.bias.float()[None]
        x, normed = operations.residual_norm(x, update, gate, *affine, block.norm2.eps)
        with_image = block.attn2.add_k_proj is not None
        update = block.attn2(normed, text) if with_image else self._attend(block.attn2, normed, text, None)
        x, normed = operations.residual_norm(x, update, None, 1 + ffn_scale, ffn_shift, block.norm3.eps)
        result: torch.Tensor = operations.add_gated(x, block.ffn(normed), ffn_gate)
        return result

    def _attend(self, layers: Any, x: torch.Tensor, context: torch.Tensor, rotary: Rotary | None) -> torch.Tensor:
        query, key, value = layers.to_q(x), layers.to_k(context), layers.to_v(context)
        query = self._operations.norm_rotate_(query, layers.norm_q.weight, layers.norm_q.eps, rotary)
        key = self._operations.norm_rotate_(key, layers.norm_k.weight, layers.norm_k.eps, rotary)
        heads = (part.unflatten(2, (layers.heads, -1)).transpose(1, 2) for part in (query, key, value))
        result: torch.Tensor = layers.to_out[0](self._attention(*heads).transpose(1, 2).flatten(2))
        return result


class FastVaceBlock(FastBlock):
    """``WanVACETransformerBlock``: a block of the control stream, between two projections."""

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, text: torch.Tensor, control: torch.Tensor, modulation: torch.Tensor, rotary: Rotary
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """What is added to the main stream, and the control stream, both ``[b, n, c]``."""
        block = self.block
        if block.proj_in is not None:
            control = block.proj_in(control) + x
        control = super().forward(control, text, modulation, rotary)
        return None if block.proj_out is None else block.proj_out(control), control
