"""Random models of every kind, and LoRAs and weights by the names of both published layouts.

The names of each kind are written down here, so that no change of a library moves both sides.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import save_file

from tests.engines.random_models import TRANSFORMER

State = dict[str, torch.Tensor]
CPU = torch.device("cpu")
KINDS: dict[str, Callable[[], Any]] = {
    "text": lambda: WanTransformer3DModel(**TRANSFORMER),
    "36 channels": lambda: WanTransformer3DModel(**TRANSFORMER, in_channels=36, out_channels=16),
    "36 channels and CLIP": lambda: WanTransformer3DModel(**TRANSFORMER, in_channels=36, image_dim=64, added_kv_proj_dim=256),
    "36 channels and CLIP, first and last frame": lambda: WanTransformer3DModel(
        **TRANSFORMER, in_channels=36, image_dim=64, added_kv_proj_dim=256, pos_embed_seq_len=514
    ),
    "VACE": lambda: WanVACETransformer3DModel(**TRANSFORMER, vace_layers=[0, 2]),
}

Pairs = tuple[tuple[str, str], ...]
"""Names of layers or parameters in the original release, each with diffusers' name."""
_LAYERS: Pairs = (
    ("patch_embedding", "patch_embedding"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("head.head", "proj_out"),
)
_BLOCK_LAYERS: Pairs = (
    ("self_attn.q", "attn1.to_q"),
    ("self_attn.k", "attn1.to_k"),
    ("self_attn.v", "attn1.to_v"),
    ("self_attn.o", "attn1.to_out.0"),
    ("cross_attn.q", "attn2.to_q"),
    ("cross_attn.k", "attn2.to_k"),
    ("cross_attn.v", "attn2.to_v"),
    ("cross_attn.o", "attn2.to_out.0"),
    ("norm3", "norm2"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
)
_BLOCK_PARAMETERS: Pairs = (
    ("self_attn.norm_q.weight", "attn1.norm_q.weight"),
    ("self_attn.norm_k.weight", "attn1.norm_k.weight"),
    ("cross_attn.norm_q.weight", "attn2.norm_q.weight"),
    ("cross_attn.norm_k.weight", "attn2.norm_k.weight"),
    ("modulation", "scale_shift_table"),
)
_IMAGE_LAYERS: Pairs = (
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
)
_IMAGE_BLOCK_LAYERS: Pairs = (("cross_attn.k_img", "attn2.add_k_proj"), ("cross_attn.v_img", "attn2.add_v_proj"))


def names_of(*, clip: bool = False, positions: bool = False, vace: bool = False) -> dict[str, str]:
    """Return the names of all tensors in the original release, each with diffusers' name."""
    return dict(_names(clip=clip, positions=positions, vace=vace))


def _names(*, clip: bool, positions: bool, vace: bool) -> Iterator[tuple[str, str]]:
    yield from _with_ends(_LAYERS)
    yield "head.modulation", "scale_shift_table"
    for number in range(TRANSFORMER["num_layers"]):
        block = _with_ends(_BLOCK_LAYERS) + _BLOCK_PARAMETERS
        if clip:
            block += (*_with_ends(_IMAGE_BLOCK_LAYERS), ("cross_attn.norm_k_img.weight", "attn2.norm_added_k.weight"))
        yield from ((f"blocks.{number}.{name}", f"blocks.{number}.{ours}") for name, ours in block)
    if clip:
        yield from _with_ends(_IMAGE_LAYERS)
    if positions:
        yield "img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"
    if vace:
        yield from _with_ends((("vace_patch_embedding", "vace_patch_embedding"),))
        for number in range(2):
            ends: Pairs = (("after_proj", "proj_out"), *((("before_proj", "proj_in"),) if number == 0 else ()))
            block = _with_ends(_BLOCK_LAYERS + ends) + _BLOCK_PARAMETERS
            yield from ((f"vace_blocks.{number}.{name}", f"vace_blocks.{number}.{ours}") for name, ours in block)


def _with_ends(layers: Pairs) -> Pairs:
    return tuple((f"{name}.{end}", f"{ours}.{end}") for name, ours in layers for end in ("weight", "bias"))


_LAYER_NAMES = {
    ours.rpartition(".")[0]: name.rpartition(".")[0] for name, ours in names_of(clip=True, vace=True).items() if "." in ours
}


def published_layer(name: str) -> str:
    """Return the original release's name of a layer that has diffusers' ``name``."""
    return _LAYER_NAMES[name]


def make(kind: str, folder: Path) -> Any:
    """Return a random model, and write its configuration to ``folder``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        model = KINDS[kind]()
    model.save_config(folder)
    return model


def write(path: Path, state: State, prefix: str = "") -> Path:
    """Write ``state`` to a safetensors file, with ``prefix`` before each name."""
    save_file({prefix + name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def names_in(model: Any) -> dict[str, str]:
    """Return ``names_of`` the kind that ``model`` is."""
    config = model.config
    return names_of(
        clip=config.image_dim is not None,
        positions=config.pos_embed_seq_len is not None,
        vace=config.get("vace_layers") is not None,
    )


def published(model: Any, dtype: torch.dtype = torch.float32) -> State:
    """Return the weights of ``model`` by the original release's names."""
    state = model.state_dict()
    return {name: state[ours].to(dtype) for name, ours in names_in(model).items()}


RANK = 4
"""The rank of the tests' LoRAs."""
LAYER = "diffusion_model.blocks.0.self_attn.q"
PAIR = {f"{LAYER}.lora_down.weight": torch.zeros(2, 256), f"{LAYER}.lora_up.weight": torch.zeros(256, 2)}
"""A LoRA of one layer that changes nothing."""


@torch.no_grad()
def forward(model: Any) -> torch.Tensor:
    """Return the output of ``model`` for seeded noise."""
    generator = torch.Generator().manual_seed(1)
    conditions = {}
    if hasattr(model, "vace_blocks"):
        conditions["control_hidden_states"] = torch.randn(1, 96, 2, 8, 8, generator=generator)
    if model.config.image_dim is not None:
        images = 1 if model.config.pos_embed_seq_len is None else 2
        conditions["encoder_hidden_states_image"] = torch.randn(images, 257, 64, generator=generator)
    inputs = {
        "hidden_states": torch.randn(1, model.config.in_channels, 2, 8, 8, generator=generator),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 64, 256, generator=generator),
    }
    result: torch.Tensor = model(**inputs, **conditions, return_dict=False)[0]
    return result


def merged(model: Any, changes: State, kind: str) -> Any:
    """Return another model with ``changes`` added to its weights."""
    other = KINDS[kind]()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, change in changes.items():
        state[name] += change
    other.load_state_dict(state)
    return other


def products(lora: State, scale: float = 1.0) -> State:
    """Return the products of the low-rank matrices, by the names of the weights they change."""
    layers = [name.removesuffix(".lora_A.weight") for name in lora if name.endswith("lora_A.weight")]
    return {f"{name}.weight": scale * lora[f"{name}.lora_B.weight"] @ lora[f"{name}.lora_A.weight"] for name in layers}
