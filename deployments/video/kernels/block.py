"""Wan's transformer blocks with fewer passes over memory.

Norm, modulation, gate and rotation are one pass each instead of seven. The arithmetic is diffusers'
in diffusers' order, except that values between two matrix products stay in float32 where diffusers
rounds them.
"""

from types import ModuleType
from typing import Any

import torch
from diffusers.models.normalization import FP32LayerNorm
from torch import nn

from deployments.video.kernels.attention import Attention

Rotary = tuple[torch.Tensor, torch.Tensor]


class FastBlock(nn.Module):
    """A fast ``WanTransformerBlock``.

    It calls the block's own linear layers, so they may be quantised. ``operations`` is the module
    ``reference`` or ``fused``.
    """

    def __init__(self, block: Any, operations: ModuleType, attention: Attention) -> None:
        super().__init__()
        if not isinstance(block.norm2, FP32LayerNorm):
            raise ValueError(
                "the block has no norm before its cross-attention; only Wan's blocks, which have one, are supported"
            )
        self.block = block
        self._operations = operations
        self._attention = attention
        self.self_attention: Attention = attention
        """The attention over the video's own tokens, which other devices may share."""

    def forward(self, x: torch.Tensor, text: torch.Tensor, modulation: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        """Return the block's output ``[b, n, c]``.

        ``x`` is ``[b, n, c]``; ``text`` is ``[b, m, c]``, with the image's embeddings first if
        there are any; ``modulation`` is ``[b, 6, c]``.
        """
        block, operations = self.block, self._operations
        x = x.contiguous()  # diffusers passes a transposed tensor to a VACE model's first block
        table = block.scale_shift_table.float() + modulation.float()
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table.unbind(1)
        normed = operations.residual_norm(x, delta=None, gate=None, scale=1 + scale, shift=shift, epsilon=block.norm1.eps)[1]
        update = self._attend(block.attn1, normed, context=normed, rotary=rotary)
        weight, bias = block.norm2.weight.float()[None], block.norm2.bias.float()[None]
        x, normed = operations.residual_norm(x, delta=update, gate=gate, scale=weight, shift=bias, epsilon=block.norm2.eps)
        has_image = block.attn2.add_k_proj is not None
        update = block.attn2(normed, text) if has_image else self._attend(block.attn2, normed, context=text, rotary=None)
        x, normed = operations.residual_norm(
            x, delta=update, gate=None, scale=1 + ffn_scale, shift=ffn_shift, epsilon=block.norm3.eps
        )
        result: torch.Tensor = operations.add_gated(x, block.ffn(normed), ffn_gate)
        return result

    def _attend(self, layers: Any, x: torch.Tensor, *, context: torch.Tensor, rotary: Rotary | None) -> torch.Tensor:
        query, key, value = layers.to_q(x), layers.to_k(context), layers.to_v(context)
        query = self._operations.norm_rotate_(query, layers.norm_q.weight, epsilon=layers.norm_q.eps, rotary=rotary)
        key = self._operations.norm_rotate_(key, layers.norm_k.weight, epsilon=layers.norm_k.eps, rotary=rotary)
        query, key, value = (part.unflatten(2, (layers.heads, -1)).transpose(1, 2) for part in (query, key, value))
        attention = self._attention if rotary is None else self.self_attention
        result: torch.Tensor = layers.to_out[0](attention(query, key, value).transpose(1, 2).flatten(2))
        return result


class FastVaceBlock(FastBlock):
    """A fast ``WanVACETransformerBlock``: a block of the control stream between two projections."""

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, text: torch.Tensor, control: torch.Tensor, modulation: torch.Tensor, rotary: Rotary
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return what is added to the main stream (if anything) and the control stream.

        Both are ``[b, n, c]``.
        """
        block = self.block
        if block.proj_in is not None:
            control = block.proj_in(control) + x
        control = super().forward(x=control, text=text, modulation=modulation, rotary=rotary)
        return None if block.proj_out is None else block.proj_out(control), control
