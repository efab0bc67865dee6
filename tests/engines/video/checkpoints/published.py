"""Random models of every kind, and their weights in the layout of the original release."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import save_file

from tests.engines.random_models import TRANSFORMER
from training.gguf_file import original_name

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
_OTHER_NAMES = (
    ("condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"),
    ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
    ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
    ("condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
    ("add_k_proj", "k_img"),
    ("add_v_proj", "v_img"),
    ("norm_added_k", "norm_k_img"),
)


def published_name(name: str) -> str:
    """Return the original release's name of a tensor of any model in ``KINDS``."""
    for diffusers_name, original in _OTHER_NAMES:
        name = name.replace(diffusers_name, original)
    if name.startswith("vace_blocks."):
        name = name.replace("proj_in.", "before_proj.").replace("proj_out.", "after_proj.")
    return name if "img_emb" in name else original_name(name)


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


def published(model: Any, dtype: torch.dtype = torch.float32) -> State:
    """Return the weights of ``model`` by the original release's names."""
    return {published_name(name): tensor.to(dtype) for name, tensor in model.state_dict().items()}
