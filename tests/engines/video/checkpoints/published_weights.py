"""Weights in the forms in which they are published."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tests.engines.video.checkpoints.published import State


def random(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


CLIP = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def clip_state() -> State:
    """Return CLIP's vision model as transformers 4 wrote it, all of it below `vision_model.`."""
    width, inner = CLIP["hidden_size"], CLIP["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (width,),
        "embeddings.patch_embedding.weight": (width, 3, 14, 14),
        "embeddings.position_embedding.weight": (5, width),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for layer in range(CLIP["num_hidden_layers"]):
        at = f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{at}.self_attn.{part}.weight": (width, width), f"{at}.self_attn.{part}.bias": (width,)}
        shapes |= {f"{at}.mlp.fc1.weight": (inner, width), f"{at}.mlp.fc1.bias": (inner,)}
        shapes |= {f"{at}.mlp.fc2.weight": (width, inner), f"{at}.mlp.fc2.bias": (width,)}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{at}.{norm}.weight": (width,), f"{at}.{norm}.bias": (width,)}
    return {f"vision_model.{name}": tensor * 0.1 for name, tensor in random(shapes).items()}


UMT5 = {
    "vocab_size": 64,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
_OF_WAN = (
    ("shared.", "token_embedding."),
    ("encoder.final_layer_norm.", "norm."),
    ("encoder.block.", "blocks."),
    (".layer.0.SelfAttention.relative_attention_bias.", ".pos_embedding.embedding."),
    (".layer.0.SelfAttention.", ".attn."),
    (".layer.0.layer_norm.", ".norm1."),
    (".layer.1.layer_norm.", ".norm2."),
    (".layer.1.DenseReluDense.wi_0.", ".ffn.gate.0."),
    (".layer.1.DenseReluDense.wi_1.", ".ffn.fc1."),
    (".layer.1.DenseReluDense.wo.", ".ffn.fc2."),
)


def umt5_state() -> State:
    """Return UMT5's encoder by transformers' names, with `shared.weight` alone, as published."""
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": (64, 32), "encoder.final_layer_norm.weight": (32,)}
    for block in range(2):
        at = f"encoder.block.{block}.layer"
        shapes |= {f"{at}.0.SelfAttention.{part}.weight": (32, 32) for part in "qkvo"}
        shapes |= {f"{at}.0.SelfAttention.relative_attention_bias.weight": (32, 4)}
        shapes |= {f"{at}.{number}.layer_norm.weight": (32,) for number in range(2)}
        shapes |= {f"{at}.1.DenseReluDense.{part}.weight": (48, 32) for part in ("wi_0", "wi_1")}
        shapes |= {f"{at}.1.DenseReluDense.wo.weight": (32, 48)}
    return {name: tensor.half().float() for name, tensor in random(shapes).items()}


def of_wan(state: State) -> State:
    """Return ``state`` by the names of Wan's own file, `models_t5_umt5-xxl-enc-bf16`."""
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in _OF_WAN:
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    return renamed


def scaled(state: State) -> State:
    """Return ``state`` as ComfyUI's `umt5_xxl_fp8_e4m3fn_scaled` has it."""
    stored: State = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn), "spiece_model": torch.zeros(9, dtype=torch.uint8)}
    for name, tensor in state.items():
        if tensor.ndim == 2 and "shared" not in name and "relative" not in name:
            scale = tensor.abs().max() / 448
            stored[name] = (tensor / scale).to(torch.float8_e4m3fn)
            stored[name.replace("weight", "scale_weight")] = scale
        else:
            stored[name] = tensor.half()
    return stored


UMT5_FILES: dict[str, Callable[[State], State]] = {
    "umt5_xxl_fp16": lambda state: (
        {name: t.half() for name, t in state.items()} | {"spiece_model": torch.zeros(9, dtype=torch.uint8)}
    ),
    "umt5-xxl-enc-fp32, both embeddings": lambda state: state | {"encoder.embed_tokens.weight": state["shared.weight"].clone()},
    "the other embedding": lambda state: {name.replace("shared", "encoder.embed_tokens"): t for name, t in state.items()},
    "umt5-xxl-enc, Wan's names": of_wan,
    "in a file with other models": lambda state: (
        {f"text_encoders.umt5xxl.transformer.{name}": t for name, t in state.items()}
        | {"model.diffusion_model.blocks.0.weight": torch.zeros(1), "vae.conv1.weight": torch.zeros(1)}
    ),
    "in a file with the older prefixes": lambda state: (
        {f"cond_stage_model.umt5xxl.transformer.{name}": t for name, t in state.items()}
        | {"model.diffusion_model.blocks.0.weight": torch.zeros(1), "first_stage_model.conv1.weight": torch.zeros(1)}
    ),
    "in a file that ComfyUI saved": lambda state: (
        {f"text_encoders.umt5xxl.transformer.{name}": t for name, t in state.items()}
        | {"text_encoders.umt5xxl.logit_scale": torch.ones(()), "text_encoders.spiece_model": torch.zeros(9, dtype=torch.uint8)}
        | {"text_encoders.clip_l.transformer.text_model.final_layer_norm.weight": torch.ones(4)}
        | {"model.diffusion_model.blocks.0.weight": torch.zeros(1)}
    ),
    "as a trainer saves it": lambda state: {f"module.model.transformer.{name}": t for name, t in state.items()},
    "with ComfyUI's scale": lambda state: state | {"logit_scale": torch.ones(())},
    "the whole UMT5": lambda state: (
        state | {"decoder.final_layer_norm.weight": torch.ones(32), "lm_head.weight": torch.ones(64, 32)}
    ),
}


def vae_state(blocks: int) -> State:
    """Return a Wan VAE of width 8 by the original release's names, of which a few have a rule.

    The decoder has ``blocks`` + 1 layers in each stage, and an upsampler behind them.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, into: int, *kernel: int) -> None:
        shapes.update({f"{name}.weight": (out, into, *kernel), f"{name}.bias": (out,)})

    def residual(name: str, out: int, into: int) -> None:
        shapes[f"{name}.residual.0.gamma"] = (into, 1, 1, 1)
        conv(f"{name}.residual.2", out, into, 3, 3, 3)
        shapes[f"{name}.residual.3.gamma"] = (out, 1, 1, 1)
        conv(f"{name}.residual.6", out, out, 3, 3, 3)
        if out != into:
            conv(f"{name}.shortcut", out, into, 1, 1, 1)

    def middle(name: str, width: int) -> None:
        residual(f"{name}.0", width, width)
        shapes[f"{name}.1.norm.gamma"] = (width, 1, 1)
        conv(f"{name}.1.to_qkv", 3 * width, width, 1, 1)
        conv(f"{name}.1.proj", width, width, 1, 1)
        residual(f"{name}.2", width, width)

    widths, temporal = (8, 16, 32, 32), (False, True, True)
    conv("encoder.conv1", 8, 3, 3, 3, 3)
    number, width = 0, 8
    for stage, out in enumerate(widths):
        for _ in range(blocks):
            residual(f"encoder.downsamples.{number}", out, width)
            number, width = number + 1, out
        if stage < 3:
            conv(f"encoder.downsamples.{number}.resample.1", out, out, 3, 3)
            if temporal[stage]:
                conv(f"encoder.downsamples.{number}.time_conv", out, out, 3, 1, 1)
            number += 1
    middle("encoder.middle", 32)
    shapes["encoder.head.0.gamma"] = (32, 1, 1, 1)
    conv("encoder.head.2", 32, 32, 3, 3, 3)
    conv("conv1", 32, 32, 1, 1, 1)
    conv("conv2", 16, 16, 1, 1, 1)
    conv("decoder.conv1", 32, 16, 3, 3, 3)
    middle("decoder.middle", 32)
    number, width = 0, 32
    for stage, out in enumerate((32, 32, 16, 8)):
        into = width if stage == 0 else width // 2
        for _ in range(blocks + 1):
            residual(f"decoder.upsamples.{number}", out, into)
            number, into = number + 1, out
        width = out
        if stage < 3:
            conv(f"decoder.upsamples.{number}.resample.1", out // 2, out, 3, 3)
            if temporal[::-1][stage]:
                conv(f"decoder.upsamples.{number}.time_conv", 2 * out, out, 3, 1, 1)
            number += 1
    shapes["decoder.head.0.gamma"] = (8, 1, 1, 1)
    conv("decoder.head.2", 3, 8, 3, 3, 3)
    return {name: 0.1 * tensor for name, tensor in random(shapes).items()}
