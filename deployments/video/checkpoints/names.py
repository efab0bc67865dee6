"""The names of tensors in published files, and those that the libraries' models have for them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

Rename = Callable[[str], str]
Shapes = Mapping[str, tuple[int, ...]]

_WRAPPERS = ("_orig_mod.", "module.", "model.", "net.")
"""What compiling, training on several GPUs, and trainers put before the names of a model."""
TRANSFORMER_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "pipe.dit.", "dit.", "transformer.", *_WRAPPERS)
TEXT_ENCODER_PREFIXES = (
    "text_encoders.umt5xxl.transformer.",
    "text_encoders.umt5xxl.",
    "cond_stage_model.umt5xxl.transformer.",
    "cond_stage_model.",
    "text_encoder.",
    "umt5xxl.transformer.",
    "umt5xxl.",
    "transformer.",
    *_WRAPPERS,
)
VAE_PREFIXES = ("vae.", "first_stage_model.", *_WRAPPERS)
IMAGE_ENCODER_PREFIXES = ("image_encoder.", "clip_vision.", *_WRAPPERS)
_PARTS = (
    "model.diffusion_model.",
    "diffusion_model.",
    "vae.",
    "first_stage_model.",
    "text_encoder.",
    "text_encoders.",
    "cond_stage_model.",
    "conditioner.",
    "image_encoder.",
    "clip_vision.",
    "model_ema.",
)
"""The prefixes of models that share a file."""


def renamed_shapes(shapes: Shapes, prefixes: tuple[str, ...], rename: Rename) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of one model in a file, by their new names."""
    return {rename(name): shapes[in_file] for name, in_file in select_part(shapes, prefixes).items()}


def select_part(tensors: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, str]:
    """Return the tensors of one model in a file, by their names without the first matching prefix.

    Wrappers such as `module.` go, too. The values are the names in the file. Tensors of other
    models in the file are left out.
    """
    prefix = next((prefix for prefix in prefixes if any(name.startswith(prefix) for name in tensors)), "")
    if not prefix:
        return {name: name for name in tensors}
    # What else is under the prefix's first word, such as `text_encoders.spiece_model`, is not of
    # this model.
    first_word = f"{prefix.partition('.')[0]}."
    others = (first_word, *(part for part in _PARTS if not prefix.startswith(part) and not part.startswith(prefix)))
    selected = {unwrapped(name, prefixes): name for name in tensors if name.startswith(prefix)}
    return selected | {name: name for name in tensors if not name.startswith(others)}


def unwrapped(name: str, prefixes: tuple[str, ...]) -> str:
    """Return ``name`` without the prefixes before it, however many there are."""
    while (prefix := next((prefix for prefix in prefixes if name.startswith(prefix)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def transformer_name(name: str) -> str:
    """Return diffusers' name for a tensor or, with a dot at its end, for a layer of a transformer.

    ``name`` is that of the original release.
    """
    if "face_adapter" in name or "motion_encoder" in name:
        return name  # of Wan Animate, whose tensors the conversion splits
    if "img_emb.emb_pos" in name:  # of the model for a first and a last frame; the conversion has no name for it
        return name.replace("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed")
    (renamed,) = convert_wan_transformer_to_diffusers({name: None})
    return str(renamed)


_TEXT_ENCODER = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (r"^blocks\.(\d+)\.pos_embedding\.embedding\.", r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias."),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
)


def text_encoder_name(name: str) -> str:
    """Return transformers' name for a tensor of UMT5, of which ``name`` may be Wan's own."""
    return _substituted(name, _TEXT_ENCODER)


def image_encoder_name(name: str) -> str:
    """Return the name of a tensor of CLIP's vision model without the part that names the model."""
    return name.removeprefix("vision_model.")


_VAE = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"^(encoder|decoder)\.head\.0\.", r"\1.norm_out."),
    (r"^(encoder|decoder)\.head\.2\.", r"\1.conv_out."),
    (r"^(encoder|decoder)\.middle\.0\.", r"\1.mid_block.resnets.0."),
    (r"^(encoder|decoder)\.middle\.1\.", r"\1.mid_block.attentions.0."),
    (r"^(encoder|decoder)\.middle\.2\.", r"\1.mid_block.resnets.1."),
    (r"^encoder\.downsamples\.", "encoder.down_blocks."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)


def vae_renamer(res_blocks: int) -> Rename:
    """Return diffusers' names for tensors of a VAE in Wan's own names.

    ``res_blocks`` is the configuration's `num_res_blocks`: the original release numbers all layers
    of the decoder in one row, in which each stage has one layer more than that, and an upsampler.
    """
    in_stage = res_blocks + 2

    def place(match: re.Match[str]) -> str:
        stage, layer = divmod(int(match[1]), in_stage)
        return f"decoder.up_blocks.{stage}." + ("upsamplers.0." if layer == in_stage - 1 else f"resnets.{layer}.")

    def rename(name: str) -> str:
        if name.startswith(("encoder.down_blocks.", "decoder.up_blocks.")):
            return name  # diffusers' own
        return re.sub(r"^decoder\.upsamples\.(\d+)\.", place, _substituted(name, _VAE))

    return rename


def _substituted(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name
