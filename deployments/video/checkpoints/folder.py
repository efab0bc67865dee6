"""Loads the parts of a Wan checkpoint from a folder in diffusers' layout.

Before any weight is read, the tensors in the files are compared with those that the configuration
asks for. A missing tensor, an unknown one or one of the wrong shape is an error that names it; the
libraries would only warn, or fail later with an unrelated error.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel, WanVACETransformer3DModel
from safetensors import safe_open
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.read_ahead import read_ahead

Shapes = Mapping[str, tuple[int, ...]]

TRANSFORMERS = {"WanTransformer3DModel": WanTransformer3DModel, "WanVACETransformer3DModel": WanVACETransformer3DModel}


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


def read_config(folder: Path, file: str = "config.json") -> dict[str, Any]:
    """Return the JSON object in ``folder/file``; raises ``CheckpointRefused`` if there is none."""
    path = folder / file
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointRefused(f"{path}: no such file; expected a folder in diffusers' layout") from None
    except ValueError as e:
        raise CheckpointRefused(f"{path}: not valid JSON ({e})") from None
    if not isinstance(config, dict):
        raise CheckpointRefused(f"{path}: not a JSON object")
    return config


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in the safetensors files of ``folder``.

    Only the headers of the files are read. Raises ``CheckpointRefused`` if a file is missing or
    unreadable.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    files = sorted(folder.glob("*.safetensors"))
    for index in folder.glob("*.safetensors.index.json"):
        indexed = set(json.loads(index.read_text())["weight_map"].values())
        for name in sorted(indexed - {file.name for file in files}):
            raise CheckpointRefused(f"{folder / name}: {index.name} names this file, but it is missing")
    if not files:
        raise CheckpointRefused(f"{folder}: no *.safetensors file")
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                shapes.update({name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()})  # noqa: SIM118
        except Exception as e:  # safetensors raises an error type that it does not export
            raise CheckpointRefused(f"{file}: not a readable safetensors file, perhaps truncated ({e})") from e
    return shapes


def compare_shapes(where: Path, expected: Shapes, found: Shapes, *, tied: Iterable[str] = ()) -> None:
    """Raise ``CheckpointRefused`` unless ``found`` holds exactly the tensors of ``expected``.

    Tensors in ``tied`` may be absent or extra. ``where`` is the file or folder to name in the
    error.
    """
    optional = set(tied)
    wrong = [f"missing tensor `{name}`" for name in expected if name not in found and name not in optional]
    wrong += [f"unknown tensor `{name}`" for name in found if name not in expected and name not in optional]
    wrong += [
        f"tensor `{name}` has shape {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise CheckpointRefused(f"{where}: {'; '.join(wrong[:3])}{more}")


def expected_shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of ``model``, which may be on the meta device."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def empty_transformer(folder: Path) -> torch.nn.Module:
    """Return the transformer that ``folder/config.json`` describes, on the meta device."""
    config = read_config(folder)
    model_class = TRANSFORMERS.get(config.get("_class_name", ""))
    if model_class is None:
        raise CheckpointRefused(
            f"{folder}: unknown architecture `{config.get('_class_name')}`; available: {', '.join(TRANSFORMERS)}"
        )
    with init_empty_weights():
        model: torch.nn.Module = model_class.from_config(config)
    return model


def load_transformer(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Load a Wan or Wan VACE transformer from ``folder``, which has its config.json."""
    empty = empty_transformer(folder)
    compare_shapes(folder, expected_shapes(empty), stored_shapes(folder))
    return _load(type(empty), folder, dtype=dtype, device=device)


def empty_text_encoder(folder: Path) -> UMT5EncoderModel:
    """Return the UMT5 encoder that ``folder/config.json`` describes, on the meta device."""
    with init_empty_weights():
        return UMT5EncoderModel(UMT5Config.from_dict(read_config(folder)))


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a checkpoint folder.

    Raises ``CheckpointRefused`` if it has more tokens than the folder's text encoder.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    vocabulary = empty_text_encoder(folder / "text_encoder").config.vocab_size
    if len(tokenizer) > vocabulary:
        raise CheckpointRefused(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, but the text encoder only {vocabulary}; "
            "take both from the same checkpoint"
        )
    return tokenizer


def load_text_encoder(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Load a UMT5 encoder from ``folder``."""
    # The embedding is one tensor, which files store under one of these names or under both.
    tied = {"shared.weight", "encoder.embed_tokens.weight"}
    compare_shapes(folder, expected_shapes(empty_text_encoder(folder)), stored_shapes(folder), tied=tied)
    return _load(UMT5EncoderModel, folder, dtype=dtype, device=device)


def load_vae(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the causal video VAE from ``folder``.

    Raises ``CheckpointRefused`` for a VAE that cannot be decoded as a stream.
    """
    config = read_config(folder)
    if config.get("patch_size") is not None:
        raise CheckpointRefused(f"{folder}: a VAE with `patch_size` (Wan 2.2 5B) is not supported; use the Wan 2.1 VAE")
    with init_empty_weights():
        empty = AutoencoderKLWan.from_config(config)
    compare_shapes(folder, expected_shapes(empty), stored_shapes(folder))
    return _load(AutoencoderKLWan, folder, dtype=dtype, device=device)


def load_image_encoder(folder: Path, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Load the CLIP vision model and its preprocessor, which checkpoints like Wan 2.1 I2V have.

    Returns both by the names of a pipeline's arguments.
    """
    part = folder / "image_encoder"
    with init_empty_weights():
        empty = CLIPVisionModel(CLIPVisionConfig.from_dict(read_config(part)))
    # Older files also store the position ids, which only count up.
    compare_shapes(part, expected_shapes(empty), stored_shapes(part), tied={"vision_model.embeddings.position_ids"})
    encoder = _load(CLIPVisionModel, part, dtype=dtype, device=device)
    processor = CLIPImageProcessor.from_pretrained(folder / "image_processor", local_files_only=True)
    return {"image_encoder": encoder, "image_processor": processor}


def load_scheduler(folder: Path, flow_shift: float | None) -> UniPCMultistepScheduler:
    """Load UniPC as ``folder`` configures it; ``flow_shift`` overrides its shift."""
    config = read_config(folder / "scheduler", "scheduler_config.json")
    if not config.get("use_flow_sigmas"):
        raise CheckpointRefused(f"{folder / 'scheduler'}: `use_flow_sigmas` must be true, because Wan is a flow model")
    overrides = {} if flow_shift is None else {"flow_shift": flow_shift}
    return UniPCMultistepScheduler.from_config(config, **overrides)


def _load(model_class: Any, folder: Path, *, dtype: torch.dtype, device: torch.device) -> Any:
    read_ahead(sorted(folder.glob("*.safetensors")))
    model = model_class.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    return model.eval().requires_grad_(False).to(device)
