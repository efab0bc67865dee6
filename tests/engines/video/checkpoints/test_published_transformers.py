"""Transformers of every kind in the layouts that are published, by names that are written down."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor
from safetensors.torch import save_file

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.check import check_video_models
from deployments.video.checkpoints.experts import load_expert
from deployments.video.checkpoints.folder import load_transformer
from deployments.video.checkpoints.lora import with_lora
from tests.engines.video.checkpoints.published import (
    CPU,
    KINDS,
    PAIR,
    State,
    forward,
    make,
    names_in,
    names_of,
    published,
    write,
)

DEAD = {f"blocks.{number}.attn2.norm_added_q.weight": torch.ones(256) for number in range(4)}
"""Tensors that the published folders of Wan 2.1 I2V have, and no model."""


def distinct(kind: str, folder: Path) -> Any:
    """Return a random model of which no two tensors are equal, not even those of norms."""
    model = make(kind, folder).eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
        parameter.data = parameter.data.half().float()  # so that GGUF files keep them exactly
    return model


def diffusers_state(model: Any) -> State:
    """Return the weights by the names in published folders of diffusers' layout."""
    state = model.state_dict()
    return {ours: state[ours] for ours in names_in(model).values()}


def write_shards(folder: Path, state: State) -> Path:
    names = sorted(state)
    shards = (names[::2], names[1::2])
    weight_map: dict[str, str] = {}
    for number, part in enumerate(shards, 1):
        file = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def write_gguf(path: Path, state: State) -> Path:
    writer = gguf.GGUFWriter(path, arch="wan")
    for name, tensor in state.items():
        writer.add_tensor(name, tensor.half().numpy() if tensor.ndim == 2 else tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


FORMS: dict[str, Callable[[Path, Any, State], Path]] = {
    "shards, diffusers' names": lambda folder, model, dead: write_shards(folder, diffusers_state(model) | dead),
    "a shard of several": lambda folder, model, dead: (
        write_shards(folder, published(model) | dead) / "diffusion_pytorch_model-00001-of-00002.safetensors"
    ),
    "one file, diffusers' names": lambda folder, model, dead: write(folder / "m.safetensors", diffusers_state(model) | dead),
    "one file": lambda folder, model, dead: write(folder / "m.safetensors", published(model) | dead),
    "ComfyUI's prefix": lambda folder, model, dead: write(
        folder / "m.safetensors", published(model) | dead, "model.diffusion_model."
    ),
    "DiffSynth's prefix": lambda folder, model, dead: write(folder / "m.safetensors", published(model) | dead, "pipe.dit."),
    "as training on several GPUs saves it, compiled": lambda folder, model, dead: write(
        folder / "m.safetensors", published(model) | dead, "module._orig_mod.transformer."
    ),
    "GGUF": lambda folder, model, dead: write_gguf(folder / "m.gguf", published(model) | dead),
    "GGUF with a prefix": lambda folder, model, dead: write_gguf(
        folder / "m.gguf", {f"model.diffusion_model.{name}": tensor for name, tensor in (published(model) | dead).items()}
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_written_down_are_all_of_a_model(kind: str, tmp_path: Path) -> None:
    model = make(kind, tmp_path)
    assert sorted(names_in(model).values()) == sorted(model.state_dict())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_in_every_form(kind: str, form: str, tmp_path: Path) -> None:
    part = tmp_path / "transformer"
    part.mkdir()
    model = distinct(kind, part)
    path = FORMS[form](part, model, DEAD if "CLIP" in kind else {})
    loaded = load_expert(path, folder=tmp_path, part="transformer", dtype=torch.float32, device=CPU)
    state = loaded.state_dict()
    for name, tensor in diffusers_state(model).items():
        assert torch.equal(dequantize_gguf_tensor(state[name]).float(), tensor), name
    torch.testing.assert_close(forward(loaded), forward(model), rtol=1e-3, atol=1e-3)
    findings = [finding for finding in check_video_models(part) if finding.path.suffix in (".safetensors", ".gguf")]
    assert [finding.faults for finding in findings] == [()]


@pytest.mark.parametrize("form", ["one file", "GGUF"])
def test_other_tensors_are_still_unknown(form: str, tmp_path: Path) -> None:
    part = tmp_path / "transformer"
    part.mkdir()
    model = make("36 channels and CLIP", part)
    path = FORMS[form](part, model, {"blocks.0.attn2.norm_added_v.weight": torch.ones(256)})
    with pytest.raises(CheckpointRefused, match=r"unknown tensor `blocks\.0\.attn2\.norm_added_v\.weight`"):
        load_expert(path, folder=tmp_path, part="transformer", dtype=torch.float32, device=CPU)


def test_what_no_model_has_may_be_damaged_quantised_or_changed_by_a_lora(tmp_path: Path) -> None:
    """Such a tensor is not looked at: neither its numbers nor its scale nor its change."""
    model = distinct("36 channels and CLIP", tmp_path)
    name = "blocks.0.attn2.norm_added_q"
    dead: State = {f"{name}.weight": torch.full((256,), float("nan")), f"{name}.scale_weight": torch.ones(256, 7)}
    write_shards(tmp_path, diffusers_state(model) | dead)
    loaded = load_transformer(tmp_path, torch.float32, CPU)
    assert torch.equal(forward(loaded), forward(model))
    lora = write(tmp_path / "lora.safetensors", PAIR | {f"diffusion_model.{name}.diff": torch.ones(256)})
    assert torch.equal(forward(with_lora(loaded, lora, torch.float32)), forward(model))


def test_the_names_are_those_of_the_published_files() -> None:
    """A few that are easily got wrong are spelt out once more."""
    names = names_of(clip=True, positions=True, vace=True)
    assert names["blocks.3.cross_attn.norm_k_img.weight"] == "blocks.3.attn2.norm_added_k.weight"
    assert names["blocks.0.norm3.bias"] == "blocks.0.norm2.bias"
    assert names["img_emb.emb_pos"] == "condition_embedder.image_embedder.pos_embed"
    assert names["vace_blocks.0.before_proj.weight"] == "vace_blocks.0.proj_in.weight"
    assert "vace_blocks.1.before_proj.weight" not in names
    assert names["head.modulation"] == "scale_shift_table"
