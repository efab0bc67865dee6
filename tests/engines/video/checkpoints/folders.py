"""Copies of the demo's folders, with changes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from tests.engines.random_models import TRANSFORMER, RandomCheckpoints


def copy_of(folder: Path, to: Path) -> Path:
    return shutil.copytree(folder, to / folder.name)


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def image_folder(random_models: RandomCheckpoints, to: Path, *, clip: bool, positions: int | None = None) -> Path:
    """Write a Wan 2.1 image-to-video folder with 36 channels, with or without an image encoder.

    ``positions`` are those of a model for a first and a last frame.
    """
    folder = copy_of(random_models.text, to)
    shutil.rmtree(folder / "transformer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        extra = {"image_dim": 64, "added_kv_proj_dim": 256, "pos_embed_seq_len": positions} if clip else {}
        WanTransformer3DModel(**TRANSFORMER, in_channels=36, **extra).save_pretrained(folder / "transformer")
        if clip:
            config = CLIPVisionConfig(
                hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=224, patch_size=14
            )
            CLIPVisionModel(config).save_pretrained(folder / "image_encoder")
            CLIPImageProcessor().save_pretrained(folder / "image_processor")
    return folder
