"""The names of tensors tell a LoRA from other files, and which layer and part a tensor is."""

import pytest

from deployments.lora_names import changed_part, check_names, is_change


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("blocks.0.ffn.0.lora_A.weight", ("blocks.0.ffn.0", "down")),
        ("blocks.0.ffn.0.lora_B.default.weight", ("blocks.0.ffn.0", "up")),
        ("lora_unet_blocks_0_ffn_0.lora_down.weight", ("lora_unet_blocks_0_ffn_0", "down")),
        ("blocks.0.ffn.0.lora_up.bias", ("blocks.0.ffn.0", "up_bias")),
        ("blocks.0.ffn.0.alpha", ("blocks.0.ffn.0", "alpha")),
        ("blocks.0.norm3.diff_b", ("blocks.0.norm3", "diff_b")),
        ("blocks.0.diff_m", ("blocks.0.modulation", "diff")),
    ],
)
def test_a_name_says_what_is_changed(key: str, part: tuple[str, str]) -> None:
    assert changed_part(key) == part


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["blocks.0.ffn.0.weight"], "unknown tensor `blocks.0.ffn.0.weight`; expected a name that ends in `lora_down.weight`"),
        (["a.lora_A.weight", "a.lora_B.weight", "b.weight"], "unknown tensor `b.weight`"),
        (["a.hada_w1_a"], "a DoRA, LoKr, LoHa or another relative of LoRA"),
        (["a.lora_A.weight", "a.lora_B.weight", "a.lora_magnitude_vector.weight"], "relative of LoRA"),
        (["a.lora_down.bias"], "the narrow side of a LoRA has no bias"),
        (["a.lora_A.weight"], "the change of `a` is incomplete; it has only down"),
        (["a.lora_A.weight", "b.lora_B.weight"], "incomplete"),
        (["a.alpha"], "incomplete; it has only alpha"),
        ([], "it has no tensors"),
    ],
)
def test_a_file_that_is_no_lora_is_told_by_its_names(keys: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_names(keys)


def test_whole_loras_pass() -> None:
    own = ["blocks.0.a.lora_A.weight", "blocks.0.a.lora_B.weight", "blocks.0.a.alpha", "b.diff", "b.diff_b"]
    check_names([*own, "c.lora_down.weight", "c.lora_up.weight"])


@pytest.mark.parametrize(
    ("layer", "is_of_wan"),
    [
        ("diffusion_model.blocks.0.self_attn.q", True),
        ("transformer.vace_blocks.0.attn1.to_q", True),
        ("base_model.model.blocks.39.attn1.to_q", True),
        ("blocks.0.self_attn.q", True),
        ("lora_unet_blocks_0_self_attn_q", True),
        ("lora_unet__blocks_0_cross_attn_k", True),
        ("lora_transformer_blocks_0_attn1_to_q", True),
        ("lycoris_blocks_0_attn1_to_q", True),
        ("lora_unet_down_blocks_1_attentions_0_proj_in", False),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", False),
        ("transformer.single_transformer_blocks.0.attn.to_q", False),
        ("lora_unet_double_blocks_0_img_attn_proj", False),
        ("diffusion_model.transformer_blocks.0.attn1.to_q", False),
        ("lora_transformer_transformer_blocks_0_attn1_to_q", False),
        ("diffusion_model.layers.0.attention.to_q", False),
    ],
)
def test_loras_of_other_models_are_told_by_the_names_of_their_blocks(layer: str, is_of_wan: bool) -> None:
    keys = [f"{layer}.lora_down.weight", f"{layer}.lora_up.weight", f"{layer}.alpha"]
    if is_of_wan:
        check_names(keys)
    else:
        with pytest.raises(ValueError, match=f"it is of another model than Wan: it changes `{layer}`"):
            check_names(keys)


def test_relatives_of_loras_are_changes_too_and_weights_are_not() -> None:
    assert is_change("a.lora_A.weight")
    assert is_change("a.lokr_w1")
    assert is_change("a.diff_b")
    assert not is_change("a.weight")
