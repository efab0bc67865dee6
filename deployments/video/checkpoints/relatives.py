"""Files that are related to Wan's models, and cannot be used as they are."""

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Relative:
    """A file that cannot be used."""

    model: str
    """What it is."""
    fault: str
    """Why it cannot be used, and what to use instead."""


_MODULE = Relative(
    "VACE module of Wan",
    "has only what VACE adds to a text model, which is not supported; use a file with the whole model, such as "
    "`wan2.1_vace_14B_fp16.safetensors`, as models.wan26.image_weights",
)
PART = Relative(
    "a part of a Wan transformer",
    "is one of several files of a model, and no index beside it names them; download their `*.safetensors.index.json` too",
)
_OPEN_CLIP = Relative(
    "CLIP in OpenCLIP's layout, image encoder of Wan 2.1",
    "this layout is not read; put ComfyUI's `clip_vision_h.safetensors` or the `model.safetensors` of a diffusers checkpoint "
    "into the folder `image_encoder` of models.wan26.image",
)
_T5 = Relative(
    "T5 v1.1, text encoder of other models",
    "is not supported; Wan needs UMT5, such as `umt5_xxl_fp8_e4m3fn_scaled.safetensors`",
)
_PREVIEW = Relative(
    "TAE, a small decoder for previews",
    "is not supported; previews are made by the VAE itself",
)
_OF_BLOCK = re.compile(r"blocks\.\d+\.(attn2\.to_q\.weight|ffn\.net\.0\.proj\.weight|scale_shift_table)")
"""Tensors of a block. HunyuanDiT has the first of them as well."""
_BIAS = re.compile(r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\.weight")


def relative_of_transformer(names: Collection[str]) -> Relative | None:
    """Return what a file is that is no whole transformer; ``names`` are diffusers'."""
    if "vace_patch_embedding.weight" in names:
        return _MODULE
    of_block = {match[1] for name in names if (match := _OF_BLOCK.fullmatch(name))}
    has_block = "attn2.to_q.weight" in of_block and len(of_block) > 1
    return PART if has_block or {"patch_embedding.weight", "condition_embedder.time_proj.weight"} <= {*names} else None


def relative_of_text_encoder(names: Collection[str]) -> Relative | None:
    """Return T5 v1.1, which has one table of distances for all blocks; UMT5 has one for each.

    ``names`` are those of transformers.
    """
    biases = {match[1] for name in names if (match := _BIAS.fullmatch(name))}
    return _T5 if biases == {"0"} and any(name.startswith("encoder.block.1.") for name in names) else None


def relative_of_image_encoder(names: Collection[str]) -> Relative | None:
    """Return CLIP's vision model by the names of OpenCLIP, or of Wan's file of it."""
    of_wan = ("cls_embedding", "pre_norm.weight", "transformer.0.attn.to_qkv.weight")
    of_open_clip = ("class_embedding", "ln_pre.weight", "transformer.resblocks.0.attn.in_proj_weight")
    for ends in (of_wan, of_open_clip):
        if all(any(f".{name}".endswith(f".{end}") for name in names) for end in ends):
            return _OPEN_CLIP
    return None


def relative_of_vae(names: Collection[str]) -> Relative | None:
    """Return the small decoder that ComfyUI shows previews with, by its own names."""
    ends = ("encoder.0.weight", "encoder.2.conv.weight", "decoder.1.weight", "decoder.3.conv.0.weight")
    return _PREVIEW if all(any(f".{name}".endswith(f".{end}") for name in names) for end in ends) else None
