"""Files of one model in blocks, and files that are related to Wan's and cannot be used."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.check import Finding, check_video_models
from deployments.video.checkpoints.experts import load_expert
from deployments.video.checkpoints.folder import load_text_encoder
from tests.engines.video.checkpoints.published import CPU, State, make, names_in, published, write
from tests.engines.video.checkpoints.published_weights import UMT5, of_wan, umt5_state, write_json


def findings(root: Path) -> dict[str, Finding]:
    return {str(finding.path.relative_to(root)): finding for finding in check_video_models(root)}


def quantised(state: State) -> State:
    """Return ``state`` with the matrices of its blocks in int8, as lightx2v has them."""
    stored: State = {}
    for name, tensor in state.items():
        stored[name] = tensor
        if tensor.ndim == 2 and name.startswith("blocks.") and name.endswith(".weight"):
            scale = tensor.abs().amax(1, keepdim=True) / 127
            stored[name] = (tensor / scale).round().to(torch.int8)
            stored[f"{name}_scale"] = scale
    return stored


def write_blocks(folder: Path, state: State) -> Path:
    """Write ``state`` as lightx2v's converter does with a file for each block."""
    files: dict[str, State] = {}
    for name, tensor in state.items():
        file = f"block_{name.split('.')[1]}" if name.startswith("blocks.") else "non_block"
        files.setdefault(f"{file}.safetensors", {})[name] = tensor.clone()
    folder.mkdir(parents=True)
    for file, part in files.items():
        save_file(part, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return folder


@pytest.mark.parametrize("is_quantised", [False, True])
def test_a_folder_of_blocks_is_one_model(is_quantised: bool, tmp_path: Path) -> None:
    model = make("text", tmp_path / "config" / "transformer")
    state = published(model)
    folder = write_blocks(tmp_path / "Wan2.1-T2V-14B-StepDistill" / "distill", quantised(state) if is_quantised else state)
    for named in (folder, folder / "block_2.safetensors", folder / "non_block.safetensors"):
        loaded = load_expert(named, folder=tmp_path / "config", part="transformer", dtype=torch.float32, device=CPU)
        for name, ours in names_in(model).items():
            error = (loaded.state_dict()[ours] - state[name]).norm()
            assert error <= (0.02 if is_quantised else 0) * state[name].norm(), name
    (finding,) = check_video_models(tmp_path)
    assert finding.path.parent == folder
    assert "text to video" in finding.model
    assert (finding.setting, finding.faults) == ("models.wan26.text_distilled", ())


def test_a_block_that_is_missing_is_named_once(tmp_path: Path) -> None:
    make("text", tmp_path / "config" / "transformer")
    folder = write_blocks(tmp_path / "blocks", published(make("text", tmp_path / "config" / "transformer")))
    (folder / "block_1.safetensors").unlink()
    for named in (folder, folder / "block_0.safetensors"):
        with pytest.raises(CheckpointRefused, match=r"block_1\.safetensors: .*index\.json names this file, but it is missing"):
            load_expert(named, folder=tmp_path / "config", part="transformer", dtype=torch.float32, device=CPU)
    (finding,) = check_video_models(tmp_path)
    (fault,) = finding.faults
    assert "block_1.safetensors" in fault
    assert "is missing" in fault


@pytest.mark.parametrize("is_escaped", [False, True])
def test_an_index_may_have_names_that_are_not_ascii(is_escaped: bool, tmp_path: Path) -> None:
    make("text", tmp_path / "config" / "transformer")
    folder = write_blocks(tmp_path / "blocks", published(make("text", tmp_path / "config" / "transformer")))
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    files = json.loads(index.read_text().replace("block_1.", "blöck_1."))
    index.write_text(json.dumps(files, ensure_ascii=is_escaped))
    named = (folder / "block_1.safetensors").rename(folder / "blöck_1.safetensors")
    load_expert(named, folder=tmp_path / "config", part="transformer", dtype=torch.float32, device=CPU)
    (finding,) = check_video_models(tmp_path)
    assert finding.faults == ()


def test_blocks_of_another_model_are_passed_over(tmp_path: Path) -> None:
    """HunyuanDiT's blocks have Wan's name for a layer of their attention."""
    names = ("blocks.0.attn2.to_q.weight", "blocks.0.ff.net.0.proj.weight", "blocks.0.norm2.weight", "pos_embed.proj.weight")
    save_file({name: torch.zeros(4) for name in names}, tmp_path / "hunyuan.safetensors")
    assert findings(tmp_path) == {}


def test_the_decoder_of_previews_is_named(tmp_path: Path) -> None:
    state = {
        "encoder.0.weight": torch.zeros(64, 3, 3, 3),
        "encoder.2.conv.weight": torch.zeros(64, 128, 1, 1),
        "decoder.1.weight": torch.zeros(256, 16, 3, 3),
        "decoder.3.conv.0.weight": torch.zeros(256, 512, 3, 3),
    }
    write(tmp_path / "taew2_1.safetensors", state)
    (finding,) = check_video_models(tmp_path)
    assert (finding.model, finding.setting) == ("TAE, a small decoder for previews", "")
    assert "is not supported" in finding.faults[0]


def test_blocks_without_an_index_are_refused(tmp_path: Path) -> None:
    folder = write_blocks(tmp_path / "blocks", published(make("text", tmp_path / "config" / "transformer")))
    (folder / "diffusion_pytorch_model.safetensors.index.json").unlink()
    for named, message in ((folder, "are not one model"), (folder / "block_0.safetensors", "missing tensor")):
        with pytest.raises(CheckpointRefused, match=message):
            load_expert(named, folder=tmp_path / "config", part="transformer", dtype=torch.float32, device=CPU)
    (finding,) = check_video_models(tmp_path)
    assert finding.model == "a part of a Wan transformer"
    assert finding.faults[0].startswith("is one of several files of a model, and no index beside it names them")


def test_each_file_with_a_fault_of_its_own_is_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"<!doctype html>")
    assert findings(tmp_path).keys() == {"one.safetensors", "two.safetensors"}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_kijais_vace_module_is_named(prefix: str, tmp_path: Path) -> None:
    state = published(make("VACE", tmp_path / "config"))
    module = {name: tensor for name, tensor in state.items() if name.startswith("vace_")}
    path = write(tmp_path / "Wan2_1-VACE_module_14B_bf16.safetensors", module, prefix)
    (finding,) = check_video_models(tmp_path)
    assert (finding.model, finding.setting) == ("VACE module of Wan", "")
    assert "use a file with the whole model" in finding.faults[0]
    with pytest.raises(CheckpointRefused, match="missing tensor"):
        load_expert(path, folder=tmp_path, part="config", dtype=torch.float32, device=CPU)


def clip_of_wan() -> State:
    """Return a layer of `open-clip-xlm-roberta-large-vit-huge-14_visual_fp16`."""
    return {
        "visual.cls_embedding": torch.zeros(1, 1, 64),
        "visual.pos_embedding": torch.zeros(1, 257, 64),
        "visual.patch_embedding.weight": torch.zeros(64, 3, 14, 14),
        "visual.pre_norm.weight": torch.zeros(64),
        "visual.pre_norm.bias": torch.zeros(64),
        "visual.transformer.0.norm1.weight": torch.zeros(64),
        "visual.transformer.0.attn.to_qkv.weight": torch.zeros(192, 64),
        "visual.transformer.0.attn.proj.weight": torch.zeros(64, 64),
        "visual.transformer.0.mlp.0.weight": torch.zeros(128, 64),
        "visual.post_norm.weight": torch.zeros(64),
        "visual.head": torch.zeros(64, 32),
    }


def clip_of_open_clip() -> State:
    """Return a layer of the vision model in OpenCLIP's own files."""
    return {
        "visual.class_embedding": torch.zeros(64),
        "visual.positional_embedding": torch.zeros(257, 64),
        "visual.conv1.weight": torch.zeros(64, 3, 14, 14),
        "visual.ln_pre.weight": torch.zeros(64),
        "visual.transformer.resblocks.0.attn.in_proj_weight": torch.zeros(192, 64),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": torch.zeros(128, 64),
        "visual.ln_post.weight": torch.zeros(64),
        "visual.proj": torch.zeros(64, 32),
    }


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("is_of_wan", [True, False])
def test_clip_in_the_layout_of_open_clip_is_named(is_of_wan: bool, prefix: str, tmp_path: Path) -> None:
    state = clip_of_wan() if is_of_wan else clip_of_open_clip()
    for name, tensors in (("whole", state), ("visual", {key.removeprefix("visual."): t for key, t in state.items()})):
        write(tmp_path / f"{name}.safetensors", tensors, prefix)
    found = findings(tmp_path)
    assert found.keys() == {"whole.safetensors", "visual.safetensors"}
    for finding in found.values():
        assert "OpenCLIP's layout" in finding.model
        assert "put ComfyUI's `clip_vision_h.safetensors`" in finding.faults[0]
        assert finding.setting == ""


def test_t5_is_told_from_umt5(tmp_path: Path) -> None:
    bias = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"
    state = umt5_state()
    t5 = {name: tensor for name, tensor in state.items() if name != bias}
    write(tmp_path / "t5xxl_fp16.safetensors", t5)
    write(tmp_path / "t5-wan-names.safetensors", of_wan(t5))
    write(tmp_path / "umt5_xxl_fp16.safetensors", state)
    write(tmp_path / "cut.safetensors", {name: t for name, t in state.items() if name != bias.replace(".1.", ".0.", 1)})
    found = findings(tmp_path)
    for name in ("t5xxl_fp16.safetensors", "t5-wan-names.safetensors"):
        assert found[name].model == "T5 v1.1, text encoder of other models"
        assert found[name].setting == ""
        assert "Wan needs UMT5" in found[name].faults[0]
    assert found["umt5_xxl_fp16.safetensors"].faults == ()
    assert found["cut.safetensors"].model.startswith("UMT5")
    assert found["cut.safetensors"].faults[0].startswith("is incomplete: it has no 'encoder.block.0")
    write_json(tmp_path / "config.json", UMT5)
    with pytest.raises(CheckpointRefused, match=r"missing tensor `encoder\.block\.1"):
        load_text_encoder(tmp_path, torch.float32, CPU, tmp_path / "t5xxl_fp16.safetensors")
