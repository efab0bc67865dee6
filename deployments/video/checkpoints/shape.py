"""What a single file's tensors are: which model, and with which configuration it is built.

Files of the original layout come without a configuration, but their shapes tell all of it.
"""

import re
from collections.abc import Iterable
from typing import Any

from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from deployments.video.checkpoints.names import Shapes
from deployments.video.checkpoints.weights import skipped_names

HEAD = 128
"""The width of a head of attention in every Wan transformer."""


def empty_transformer_of(shapes: Shapes) -> Any:
    """Return the transformer, on the meta device, that has tensors of ``shapes``, by its names.

    Raises ``KeyError`` if there is none.
    """
    width, channels = shapes["patch_embedding.weight"][:2]
    layers = _count(shapes, r"blocks\.(\d+)\.")
    embedded = shapes.get("condition_embedder.image_embedder.norm1.weight")
    positions = shapes.get("condition_embedder.image_embedder.pos_embed")
    config: dict[str, Any] = {
        "num_attention_heads": max(1, width // HEAD),
        "attention_head_dim": min(HEAD, width),
        "in_channels": channels,
        "out_channels": shapes["proj_out.weight"][0] // 4,
        "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
        "freq_dim": shapes["condition_embedder.time_embedder.linear_1.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
        "num_layers": layers,
        "image_dim": None if embedded is None else embedded[0],
        "added_kv_proj_dim": None if embedded is None else width,
        "pos_embed_seq_len": None if positions is None else positions[1],
    }
    with init_empty_weights():
        if "vace_patch_embedding.weight" not in shapes:
            return WanTransformer3DModel(**config)
        controls = max(1, _count(shapes, r"vace_blocks\.(\d+)\."))
        steps = max(1, layers // controls)
        return WanVACETransformer3DModel(
            **config,
            vace_layers=list(range(0, layers, steps))[:controls],
            vace_in_channels=shapes["vace_patch_embedding.weight"][1],
        )


def foreign_layers(names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that are of no layer of any Wan transformer, by diffusers' names.

    The numbers of blocks are passed over, since models differ in how many they have.
    """
    with init_empty_weights():
        # This one has all that the others have.
        model = WanVACETransformer3DModel(
            num_layers=1, vace_layers=[0], image_dim=HEAD, added_kv_proj_dim=HEAD, pos_embed_seq_len=1
        )
    own = {name.removesuffix(".weight").removesuffix(".bias") for name in model.state_dict()}
    in_first = {name: re.sub(r"^((?:vace_)?blocks)\.\d+\.", r"\1.0.", name) for name in names}
    unused = skipped_names(model, in_first)
    return [name for name, first in in_first.items() if first not in own and name not in unused]


def empty_text_encoder_of(shapes: Shapes) -> Any:
    """Return the UMT5 encoder, on the meta device, that has tensors of ``shapes``, by its names.

    Raises ``KeyError`` if there is none.
    """
    block = "encoder.block.0.layer"
    embedding = shapes.get("shared.weight") or shapes["encoder.embed_tokens.weight"]
    buckets, heads = shapes[f"{block}.0.SelfAttention.relative_attention_bias.weight"]
    config = UMT5Config(
        vocab_size=embedding[0],
        d_model=embedding[1],
        d_kv=shapes[f"{block}.0.SelfAttention.q.weight"][0] // heads,
        d_ff=shapes[f"{block}.1.DenseReluDense.wi_0.weight"][0],
        num_layers=_count(shapes, r"encoder\.block\.(\d+)\."),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    with init_empty_weights():
        return UMT5EncoderModel(config)


def res_blocks_of(shapes: Shapes) -> int:
    """Return `num_res_blocks` of a VAE with the names of ``shapes``, in either layout."""
    resampled = [
        int(match[1]) for name in shapes if (match := re.match(r"encoder\.down(?:samples|_blocks)\.(\d+)\.resample\.", name))
    ]
    return min(resampled, default=2)


def empty_vae_of(shapes: Shapes, res_blocks: int) -> Any:
    """Return the VAE, on the meta device, that has tensors of ``shapes``, by diffusers' names.

    Raises ``KeyError`` if there is none.
    """
    config = {"z_dim": shapes["post_quant_conv.weight"][0], "num_res_blocks": res_blocks}
    with init_empty_weights():
        return AutoencoderKLWan(**config, **vae_widths(shapes))


def vae_widths(shapes: Shapes) -> dict[str, int]:
    """Return the widths in the configuration of a VAE with tensors of ``shapes``.

    The names are diffusers'. Raises ``KeyError`` if this is no VAE.
    """
    return {"base_dim": shapes["encoder.conv_in.weight"][0], "decoder_base_dim": shapes["decoder.conv_out.weight"][1]}


def empty_image_encoder_of(shapes: Shapes) -> Any:
    """Return CLIP's vision model, on the meta device, with tensors of ``shapes``.

    The names have no `vision_model.`. Raises ``KeyError`` if there is none.
    """
    width, _, patch, _ = shapes["embeddings.patch_embedding.weight"]
    positions = shapes["embeddings.position_embedding.weight"][0] - 1
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=shapes["encoder.layers.0.mlp.fc1.weight"][0],
        num_hidden_layers=_count(shapes, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=1,
        patch_size=patch,
        image_size=patch * round(positions**0.5),
    )
    with init_empty_weights():
        return CLIPVisionModel(config)


def _count(shapes: Shapes, pattern: str) -> int:
    numbers = [int(match[1]) for name in shapes if (match := re.match(pattern, name))]
    return 1 + max(numbers, default=-1)
