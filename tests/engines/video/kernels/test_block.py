"""Fast blocks compute what the published ones do, up to rounding."""

import copy
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformerBlock
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformerBlock

from deployments.video.kernels import reference
from deployments.video.kernels.attention import native_attention
from deployments.video.kernels.block import FastBlock, FastVaceBlock

WIDTH, HEADS, TOKENS = 96, 3, 24
SHAPE: dict[str, Any] = {"dim": WIDTH, "ffn_dim": 160, "num_heads": HEADS, "cross_attn_norm": True}


def make(kind: type[torch.nn.Module], **options: Any) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        block = kind(**SHAPE, **options).eval().requires_grad_(False)
        for name, parameter in block.named_parameters():
            if "norm" in name:  # they are initialised to 1 or 0
                torch.nn.init.normal_(parameter, 1.0, 0.3)
    return block


def inputs(text_tokens: int = 7, batch: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(6)
    return {
        "x": torch.randn(batch, TOKENS, WIDTH, generator=generator),
        "text": torch.randn(batch, text_tokens, WIDTH, generator=generator),
        "modulation": torch.randn(batch, 6, WIDTH, generator=generator),
        "rotary": WanRotaryPosEmbed(WIDTH // HEADS, (1, 2, 2), 64)(torch.zeros(1, 1, 2, 6, 8)),
    }


def error(value: torch.Tensor, exact: torch.Tensor) -> float:
    return float((value.float() - exact).norm() / exact.norm())


@torch.no_grad()
@pytest.mark.parametrize(("options", "text_tokens"), [({}, 7), ({"added_kv_proj_dim": WIDTH}, 512 + 9)])
def test_a_block_equals_the_published_one(options: dict[str, Any], text_tokens: int) -> None:
    block, given = make(WanTransformerBlock, **options), inputs(text_tokens)
    theirs = block(*given.values())
    ours = FastBlock(block, reference, native_attention)(*given.values())
    assert error(given["x"], theirs) > 0.3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", [WanTransformerBlock, WanVACETransformerBlock])
def test_a_transposed_input_is_made_contiguous(kind: type[torch.nn.Module]) -> None:
    """Diffusers passes such an input to the first block of a VACE model."""
    fused = pytest.importorskip("deployments.video.kernels.fused", reason="this PyTorch comes without Triton")
    given = inputs()
    given["x"] = given["x"].transpose(1, 2).contiguous().transpose(1, 2)
    assert not given["x"].is_contiguous()
    with pytest.raises(ValueError, match="not contiguous"):
        fused.add_gated(given["x"], given["x"], None)
    if kind is WanTransformerBlock:
        block = make(kind)
        theirs, ours = (candidate(*given.values()) for candidate in (block, FastBlock(block, fused, native_attention)))
    else:
        block = make(kind, apply_input_projection=True, apply_output_projection=False)
        arguments = (given["x"], given["text"], given["x"].flip(0), given["modulation"], given["rotary"])
        theirs, ours = (candidate(*arguments)[1] for candidate in (block, FastVaceBlock(block, fused, native_attention)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_in_bfloat16_a_block_is_about_as_precise_as_the_published_one() -> None:
    rounded, given = make(WanTransformerBlock).bfloat16(), inputs()
    for name, parameter in rounded.named_parameters():
        if name.startswith(("norm", "scale_shift_table")):  # a checkpoint keeps these in float32
            parameter.data = parameter.data.float()
    given["x"], given["text"] = given["x"].bfloat16(), given["text"].bfloat16()
    exact = copy.deepcopy(rounded).float()(given["x"].float(), given["text"].float(), given["modulation"], given["rotary"])
    theirs = rounded(*given.values())
    ours = FastBlock(rounded, reference, native_attention)(*given.values())
    assert ours.dtype == torch.bfloat16
    assert error(ours, exact) < 1.1 * error(theirs, exact) < 0.02


@torch.no_grad()
@pytest.mark.parametrize("first", [True, False])
def test_a_control_block_equals_the_published_one(first: bool) -> None:
    block = make(WanVACETransformerBlock, apply_input_projection=first, apply_output_projection=not first)
    given = inputs()
    control = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(7))
    arguments = (given["x"], given["text"], control, given["modulation"], given["rotary"])
    for theirs, ours in zip(block(*arguments), FastVaceBlock(block, reference, native_attention)(*arguments), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_block_without_the_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="no norm before its cross-attention"):
        FastBlock(WanTransformerBlock(WIDTH, 160, HEADS), reference, native_attention)
