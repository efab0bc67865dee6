"""Loads the parts of a Wan checkpoint from a folder in diffusers' layout.

Before any weight is read, the tensors in the files are compared with those that the configuration
asks for. A missing tensor, an unknown one or one of the wrong shape is an error that names it; the
libraries would only warn, or fail later with an unrelated error.
"""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel, WanVACETransformer3DModel
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints import config_values
from deployments.video.checkpoints.config_values import built, check_values, types_of
from deployments.video.checkpoints.names import (
    IMAGE_ENCODER_PREFIXES,
    TEXT_ENCODER_PREFIXES,
    TRANSFORMER_PREFIXES,
    VAE_PREFIXES,
    image_encoder_name,
    renamed_shapes,
    text_encoder_name,
    transformer_name,
    vae_renamer,
)
from deployments.video.checkpoints.shape import vae_widths
from deployments.video.checkpoints.tensor_files import find_files, found_instead, read_shapes
from deployments.video.checkpoints.tokenizer import read_tokenizer
from deployments.video.checkpoints.weights import Layout, load_weights

CONFIG, INDEX = "config.json", "model_index.json"
TRANSFORMERS = {"WanTransformer3DModel": WanTransformer3DModel, "WanVACETransformer3DModel": WanVACETransformer3DModel}

TEXT_ENCODER = Layout(
    rename=text_encoder_name,
    prefixes=TEXT_ENCODER_PREFIXES,
    # The embedding is one tensor, which files store under one of these names or under both.
    tied=("shared.weight", "encoder.embed_tokens.weight"),
    # ComfyUI's files bring their tokenizer and a scale that it adds to every encoder, and those of
    # the whole UMT5 its decoder.
    ignored=("spiece_model", "logit_scale", "decoder.", "lm_head."),
)
"""UMT5's encoder, by transformers' names or Wan's own."""
IMAGE_ENCODER = Layout(
    rename=image_encoder_name,
    canonical=image_encoder_name,
    prefixes=IMAGE_ENCODER_PREFIXES,
    # Files may hold the projection, which Wan does not use, all of CLIP, and the position ids,
    # which only count up.
    ignored=(
        "visual_projection.",
        "text_projection.",
        "text_model.",
        "logit_scale",
        "embeddings.position_ids",
        "vision_model.embeddings.position_ids",
    ),
)
"""CLIP's vision model, with the part of the name that transformers 5 has dropped or without it."""


GGUF_ENCODER = (
    "a text encoder as GGUF, which is not supported; use `umt5_xxl_fp8_e4m3fn_scaled.safetensors`, which is about as small, as "
    "`text_encoder_weights`"
)


def find_folder(name: str, *, allow_hub: bool) -> Path:
    """Return the local folder of a checkpoint.

    ``name`` is a path, or with ``allow_hub`` a hub id and its commit, `owner/name@COMMIT`, which
    is fetched. Raises ``CheckpointRefused`` if there is no such folder, or no commit: a branch
    could bring other weights at every start.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if allow_hub and not folder.is_absolute() and name.count("/") == 1:
        from huggingface_hub import snapshot_download

        repository, _, commit = name.partition("@")
        if re.fullmatch("[0-9a-f]{40}", commit) is None:
            raise CheckpointRefused(f"{name}: name the commit to fetch, {repository}@COMMIT with its 40 hex digits")
        return Path(snapshot_download(repository, revision=commit))
    raise CheckpointRefused(f"{name}: no such folder; a hub id is only fetched with `allow_hub: true`")


def read_config(folder: Path, file: str = CONFIG) -> dict[str, Any]:
    """Return the JSON object in ``folder/file``; raises ``CheckpointRefused`` if there is none."""
    path = folder / file
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointRefused(f"{path}: no such file; expected a folder in diffusers' layout") from None
    except OSError as e:
        raise CheckpointRefused(f"{path}: cannot be read: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise CheckpointRefused(f"{path}: {found_instead(path, may_be_text=True) or f'not valid JSON ({e})'}") from None
    if not isinstance(config, dict):
        raise CheckpointRefused(f"{path}: not a JSON object")
    return config


def read_index(folder: Path) -> dict[str, Any]:
    """Return the index of a checkpoint; raises ``CheckpointRefused`` for none or wrong values."""
    index = read_config(folder, INDEX)
    check_values(folder / INDEX, index, config_values.INDEX)
    return index


def empty_transformer(folder: Path) -> torch.nn.Module:
    """Return the transformer that ``folder/config.json`` describes, on the meta device."""
    config = read_config(folder)
    model_class = TRANSFORMERS.get(str(config.get("_class_name", "")))
    if model_class is None:
        raise CheckpointRefused(
            f"{folder}: unknown architecture `{config.get('_class_name')}`; available: {', '.join(TRANSFORMERS)}"
        )
    model: torch.nn.Module = _build_empty(folder, config, model_class, keep_buffers=True)
    return model


def _build_empty(folder: Path, config: dict[str, Any], model_class: Any, *, keep_buffers: bool) -> Any:
    """Return the model of diffusers that ``config`` describes, on the meta device.

    No file has the buffers of a transformer, so they are kept. Each weight is then allocated and
    filled before it goes to the meta device; of a model without buffers, none ever is.
    """
    check_values(folder / CONFIG, config, types_of(model_class))
    with init_empty_weights(include_buffers=not keep_buffers):
        return built(folder / CONFIG, lambda: model_class.from_config(config))


def load_transformer(folder: Path, dtype: torch.dtype, device: torch.device, weights: Path | None = None) -> Any:
    """Load a Wan or Wan VACE transformer from ``folder``, which has its config.json.

    ``weights`` names the file or folder of its weights, if they are not in ``folder``. Names may be
    diffusers' or those of the original release.
    """
    model: Any = empty_transformer(folder)
    found = weights or folder
    layout = transformer_layout(read_shapes(find_files(found)))
    return load_weights(model, found, layout, kept_in_float32=model._keep_in_fp32_modules, dtype=dtype, device=device)


def transformer_layout(names: Iterable[str]) -> Layout:
    """Return the layout of a transformer's file by the ``names`` in it."""
    # Names of diffusers are left alone: two of its norms have each other's number.
    is_original = not any(".attn1." in name for name in names)
    return Layout(rename=transformer_name if is_original else str, prefixes=TRANSFORMER_PREFIXES)


def empty_text_encoder(folder: Path) -> UMT5EncoderModel:
    """Return the UMT5 encoder that ``folder/config.json`` describes, on the meta device."""
    config = read_text_encoder_config(folder)
    with init_empty_weights():
        return built(folder / CONFIG, lambda: UMT5EncoderModel(config))


def read_text_encoder_config(folder: Path) -> UMT5Config:
    """Return UMT5's configuration in ``folder``; raises ``CheckpointRefused`` for wrong values."""
    config = read_config(folder)
    check_values(folder / CONFIG, config, config_values.TEXT_ENCODER)
    return built(folder / CONFIG, lambda: UMT5Config.from_dict(config))


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a checkpoint folder.

    Raises ``CheckpointRefused`` if it has more tokens than the folder's text encoder.
    """
    tokenizer = read_tokenizer(folder / "tokenizer")
    vocabulary = read_text_encoder_config(folder / "text_encoder").vocab_size
    if len(tokenizer) > vocabulary:
        raise CheckpointRefused(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, but the text encoder only {vocabulary}; "
            "take both from the same checkpoint"
        )
    return tokenizer


def load_text_encoder(folder: Path, dtype: torch.dtype, device: torch.device, weights: Path | None = None) -> Any:
    """Load a UMT5 encoder from ``folder``, which has its config.json.

    ``weights`` names the file or folder of its weights, if they are not in ``folder``. Names may be
    transformers' or Wan's own.
    """
    if weights is not None and weights.suffix == ".gguf":
        raise CheckpointRefused(f"{weights}: {GGUF_ENCODER}")
    model = load_weights(empty_text_encoder(folder), weights or folder, TEXT_ENCODER, dtype=dtype, device=device)
    model.encoder.embed_tokens.weight = model.shared.weight  # one parameter, so that it is moved once
    return model


def empty_vae(folder: Path, weights: Path | None = None) -> Any:
    """Return the VAE that ``folder/config.json`` describes, on the meta device.

    It is as wide as that in ``weights``, if these are not in ``folder``: lightx2v's VAEs for Wan
    are narrower than Wan's own. Raises ``CheckpointRefused`` for a VAE that cannot be decoded as a
    stream.
    """
    config = read_config(folder)
    if config.get("patch_size") is not None:
        raise CheckpointRefused(f"{folder}: a VAE with `patch_size` (Wan 2.2 5B) is not supported; use the Wan 2.1 VAE")
    if weights is not None:
        layout = vae_layout(config.get("num_res_blocks", 2))
        shapes = renamed_shapes(read_shapes(find_files(weights)), layout.prefixes, layout.rename)
        with suppress(KeyError):  # no VAE: the loader says which tensor is missing
            config |= vae_widths(shapes)
    return _build_empty(folder, config, AutoencoderKLWan, keep_buffers=False)


def load_vae(folder: Path, dtype: torch.dtype, device: torch.device, weights: Path | None = None) -> Any:
    """Load the causal video VAE from ``folder``, which has its config.json.

    ``weights`` names the file or folder of its weights, if they are not in ``folder``. Names may be
    diffusers' or those of the original release. Raises ``CheckpointRefused`` for a VAE that cannot
    be decoded as a stream.
    """
    model = empty_vae(folder, weights)
    return load_weights(model, weights or folder, vae_layout(model.config.num_res_blocks), dtype=dtype, device=device)


def vae_layout(res_blocks: int) -> Layout:
    """Return the layout of a VAE's file; see ``vae_renamer``."""
    return Layout(rename=vae_renamer(res_blocks), prefixes=VAE_PREFIXES)


def load_image_encoder(folder: Path, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Load the CLIP vision model and its preprocessor, which checkpoints like Wan 2.1 I2V have.

    Returns both by the names of a pipeline's arguments.
    """
    part = folder / "image_encoder"
    encoder = load_weights(empty_image_encoder(part), part, IMAGE_ENCODER, dtype=dtype, device=device)
    return {"image_encoder": encoder, "image_processor": load_image_processor(folder)}


def empty_image_encoder(folder: Path) -> CLIPVisionModel:
    """Return the CLIP vision model that ``folder/config.json`` describes, on the meta device."""
    config = read_image_encoder_config(folder)
    with init_empty_weights():
        return built(folder / CONFIG, lambda: CLIPVisionModel(config))


def read_image_encoder_config(folder: Path) -> CLIPVisionConfig:
    """Return CLIP's configuration in ``folder``; raises ``CheckpointRefused`` for wrong values."""
    config = read_config(folder)
    check_values(folder / CONFIG, config, config_values.IMAGE_ENCODER)
    return built(folder / CONFIG, lambda: CLIPVisionConfig.from_dict(config))


def load_image_processor(folder: Path) -> CLIPImageProcessor:
    """Load the preprocessor of CLIP's vision model, which ``folder/image_processor`` configures."""
    part, file = folder / "image_processor", "preprocessor_config.json"
    check_values(part / file, read_config(part, file), config_values.IMAGE_PROCESSOR)
    return built(part / file, lambda: CLIPImageProcessor.from_pretrained(part, local_files_only=True))


def load_scheduler(folder: Path, flow_shift: float | None) -> UniPCMultistepScheduler:
    """Load UniPC as ``folder`` configures it; ``flow_shift`` overrides its shift."""
    part, file = folder / "scheduler", "scheduler_config.json"
    config = read_config(part, file)
    check_values(part / file, config, types_of(UniPCMultistepScheduler))
    if not config.get("use_flow_sigmas"):
        raise CheckpointRefused(f"{part}: `use_flow_sigmas` must be true, because Wan is a flow model")
    overrides = {} if flow_shift is None else {"flow_shift": flow_shift}
    return built(part / file, lambda: UniPCMultistepScheduler.from_config(config, **overrides))
