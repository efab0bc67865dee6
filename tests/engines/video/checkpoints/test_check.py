"""`ryla models check` on video models: what each file is for, and what is wrong with it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deployments.errors import CheckpointRefused
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video.build import build_wan26
from deployments.video.checkpoints.check import Finding, check_video_models
from deployments.video.checkpoints.folder import load_text_encoder
from tests.engines.random_models import RandomCheckpoints, make_lora
from tests.engines.video.checkpoints.folders import change_weights, copy_of, image_folder
from tests.engines.video.checkpoints.gguf_files import finish
from tests.engines.video.checkpoints.published import CPU, make, published, write
from tests.engines.video.checkpoints.published_weights import UMT5_FILES, clip_state, of_wan, scaled, umt5_state, vae_state


def findings(root: Path) -> dict[str, Finding]:
    return {str(finding.path.relative_to(root)): finding for finding in check_video_models(root)}


def test_folders_and_ggufs_are_for_their_settings(random_models: RandomCheckpoints) -> None:
    found = findings(random_models.folder)
    settings = {path: finding.setting for path, finding in found.items()}
    assert settings == {
        "wan2.1-t2v": "models.wan26.text",
        "wan2.1-vace": "models.wan26.image, or models.wan26.text for both",
        "wan2.2-i2v": "models.wan22_gguf.folder; for models.wan26.image it lacks the experts' weights",
        "Wan2.2-I2V-HighNoise-Q8_0.gguf": "models.wan22_gguf.high_noise",
        "Wan2.2-I2V-LowNoise-Q5_K.gguf": "models.wan22_gguf.low_noise",
        "Wan2.1-VACE-4steps-lora.safetensors": "models.wan26.text_distilled or image_distilled",
        "Wan2.2-I2V-4steps-lora-HighNoise.safetensors": "models.wan22_gguf.high_noise_distilled",
        "Wan2.2-I2V-4steps-lora-LowNoise.safetensors": "models.wan22_gguf.low_noise_distilled",
    }
    assert {path: finding.faults for path, finding in found.items() if finding.faults} == {}


def files(root: Path) -> dict[str, tuple[dict[str, torch.Tensor], str, str]]:
    """Return files by name, each with what it is and its setting."""
    text, image, clip, vace = (
        make(kind, root / "configs" / str(number))
        for number, kind in enumerate(("text", "36 channels", "36 channels and CLIP", "VACE"))
    )
    lora = {f"diffusion_model.{name}": tensor for name, tensor in make_lora(text).items()}
    return {
        "wan2.1_t2v_1.3B_fp16": (published(text), "text to video", "models.wan26.text_weights"),
        "wan2.2_t2v_low_noise_14B": (published(text), "low-noise expert", "models.wan26.text_weights_low_noise"),
        "Wan2_2-T2V-A14B_LN": (published(text), "low-noise expert", "models.wan26.text_weights_low_noise"),
        "wan22-i2v-H": (published(image), "high-noise expert", "models.wan22_gguf.high_noise"),
        "Wan2.1-T2V-1.3B-low-vram": (published(text), "text to video", "models.wan26.text_weights"),
        "wan2.1_vace": (published(vace), "VACE", "models.wan26.image_weights"),
        "Wan2_2-I2V-A14B-HIGH_bf16": (published(image), "high-noise expert", "models.wan22_gguf.high_noise"),
        "wan2.2_i2v": (published(image), "image to video", "models.wan22_gguf.high_noise or low_noise; its name does not say"),
        "wan2.1_i2v_480p_14B": (published(clip), "image to video", "models.wan26.image_weights"),
        "wan2.2_i2v_A14b_low_noise_lightx2v_4step": (
            published(image),
            "few steps, low-noise expert",
            "models.wan22_gguf.low_noise_distilled",
        ),
        "Wan2.1-T2V-14B-StepDistill": (published(text), "few steps", "models.wan26.text_distilled"),
        "wan2.1_i2v_480p_lightning": (published(clip), "few steps", "models.wan26.image_distilled"),
        "wan_vace_rapid": (published(vace), "few steps", "models.wan26.text_distilled or image_distilled"),
        "low_noise_model/model-00001-of-00001": (published(image), "low-noise expert", "models.wan22_gguf.low_noise"),
        "umt5_xxl_fp16": (UMT5_FILES["umt5_xxl_fp16"](umt5_state()), "UMT5", "models.wan26.text_encoder_weights"),
        "umt5_xxl_fp8_e4m3fn_scaled": (scaled(umt5_state()), "UMT5", "models.wan26.text_encoder_weights"),
        "umt5-xxl-enc-bf16": (of_wan(umt5_state()), "UMT5", "models.wan26.text_encoder_weights"),
        "wan_2.1_vae": (vae_state(2), "VAE of Wan 2.1", "models.wan26.vae_weights"),
        "clip_vision_h": (clip_state(), "CLIP", "the folder `image_encoder`"),
        "ink": (lora, "LoRA of rank 4 for Wan 1.3B", "the folder of models.wan26.loras"),
    }


def test_single_files_are_known_by_their_shapes(tmp_path: Path) -> None:
    expected = files(tmp_path)
    for name, (state, _, _) in expected.items():
        (tmp_path / f"{name}.safetensors").parent.mkdir(exist_ok=True)
        write(tmp_path / f"{name}.safetensors", state)
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.ones(2, 2)}, tmp_path / "flux.safetensors")
    writer = gguf.GGUFWriter(tmp_path / "flux1-dev-Q8_0.gguf", arch="flux")
    writer.add_tensor("double_blocks.0.img_attn.qkv.weight", np.zeros((4, 4), np.float32))
    finish(writer)
    (tmp_path / "notes.bin").write_bytes(b"x")
    found = findings(tmp_path)
    assert set(found) == {f"{name}.safetensors" for name in expected}
    for name, (_, model, setting) in expected.items():
        finding = found[f"{name}.safetensors"]
        assert model in finding.model, finding
        assert re.match(re.escape(setting) + r"(?!\w)", finding.setting), finding
        assert finding.faults == (), finding


def test_the_vae_of_qwen_image_is_not_taken_for_wan_s(tmp_path: Path) -> None:
    """It has the same tensors, with other values."""
    write(tmp_path / "qwen_image_vae.safetensors", vae_state(2))
    (finding,) = findings(tmp_path).values()
    assert (finding.model, finding.setting) == ("VAE of Qwen-Image", "")
    assert finding.faults == ("is not supported; use the VAE of Wan 2.1",)


def without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    assert name in state
    return {key: tensor for key, tensor in state.items() if key != name}


def test_what_is_wrong_is_said_of_each_file(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    all_files = {name: state for name, (state, _, _) in files(tmp_path).items()}
    nan = {name: tensor * float("nan") for name, tensor in all_files["ink"].items()}
    for name, state in {
        "transformer": without(all_files["wan2.1_t2v_1.3B_fp16"], "blocks.1.ffn.2.bias"),
        "umt5": without(all_files["umt5-xxl-enc-bf16"], "norm.weight"),
        "vae": without(all_files["wan_2.1_vae"], "conv2.bias"),
        "lora": nan,
    }.items():
        write(tmp_path / f"{name}.safetensors", state)
    (tmp_path / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(b"PK")
    (tmp_path / "page.safetensors").write_bytes(b"<!doctype html>")
    (tmp_path / "cut.gguf").write_bytes(random_models.high_noise.read_bytes()[:-5000])
    write(tmp_path / "part-00001-of-00002.safetensors", all_files["ink"])
    folder = copy_of(random_models.text, tmp_path)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (weights,) = (folder / "vae").glob("*.safetensors")
    weights.unlink()
    five = copy_of(random_models.vace, tmp_path)
    config = json.loads((five / "transformer" / "config.json").read_text())
    (five / "transformer" / "config.json").write_text(json.dumps({**config, "in_channels": 48}))
    found = findings(tmp_path)
    for name, message in {
        "transformer.safetensors": "missing tensor `blocks.1.ffn.net.2.bias`",
        "umt5.safetensors": "missing tensor `encoder.final_layer_norm.weight`",
        "vae.safetensors": "missing tensor `post_quant_conv.bias`",
        "lora.safetensors": "holds NaN or infinity",
        "models_t5_umt5-xxl-enc-bf16.pth": "pickled and could run code",
        "page.safetensors": "a web page instead of the file",
        "cut.gguf": "truncated",
        "part-00001-of-00002.safetensors": "part-00002-of-00002.safetensors: missing",
        "wan2.1-vace": "48 input channels is not supported",
    }.items():
        assert message in "; ".join(found[name].faults), found[name]
    tokenizer, vae = found["wan2.1-t2v"].faults
    assert "no tokenizer.json" in tokenizer
    assert "no *.safetensors file" in vae


def without_encoder(folder: Path) -> None:
    shutil.rmtree(folder / "image_encoder")


def without_processor(folder: Path) -> None:
    (folder / "image_processor" / "preprocessor_config.json").unlink()


def with_a_tensor_less(folder: Path) -> None:
    (weights,) = (folder / "image_encoder").glob("*.safetensors")
    change_weights(weights, lambda tensors: tensors.pop(next(name for name in tensors if name.endswith("mlp.fc1.bias"))))


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (lambda folder: None, ()),
        (without_encoder, (r"image_encoder.config\.json: no such file",)),
        (without_processor, (r"image_processor.preprocessor_config\.json: no such file",)),
        (with_a_tensor_less, (r"missing tensor `.*mlp\.fc1\.bias`",)),
    ],
)
def test_the_image_encoder_of_a_folder_is_looked_at(
    random_models: RandomCheckpoints, tmp_path: Path, spoil: Any, messages: tuple[str, ...]
) -> None:
    folder = image_folder(random_models, tmp_path, clip=True)
    spoil(folder)
    finding = findings(tmp_path)[folder.name]
    assert finding.setting == "models.wan26.image"
    assert len(finding.faults) == len(messages)
    for message, fault in zip(messages, finding.faults, strict=True):
        assert re.search(message, fault)
    models = Wan26Models(text=str(random_models.text), image=str(folder))
    for message in messages:  # the loader says the same
        with pytest.raises(CheckpointRefused, match=message):
            build_wan26(Wan26Settings(), models)


def test_a_lora_with_odd_tensors_and_a_text_encoder_as_gguf_get_a_sentence(tmp_path: Path) -> None:
    layer = "diffusion_model.blocks.0.self_attn.q"
    pair = {f"{layer}.lora_down.weight": torch.ones(2, 256), f"{layer}.lora_up.weight": torch.ones(256, 2)}
    write(tmp_path / "alpha.safetensors", pair | {f"{layer}.alpha": torch.ones(2)})
    write(tmp_path / "down.safetensors", pair | {f"{layer}.lora_down.weight": torch.ones(())})
    write(tmp_path / "integers.safetensors", pair | {f"{layer}.lora_up.weight": torch.ones(256, 2, dtype=torch.int8)})
    for name, architecture in (("umt5-xxl-encoder-Q8_0", "t5encoder"), ("umt5", "unknown")):
        writer = gguf.GGUFWriter(tmp_path / f"{name}.gguf", arch=architecture)
        writer.add_tensor("enc.blk.0.attn_q.weight", np.zeros((4, 4), np.float32))
        finish(writer)
    found = {name: "; ".join(finding.faults) for name, finding in findings(tmp_path).items()}
    assert "float32 [2]; an alpha must be one number" in found["alpha.safetensors"]
    assert "has the shape []; a matrix" in found["down.safetensors"]
    assert "is int8; the changes of a LoRA must be floating point" in found["integers.safetensors"]
    for name in ("umt5-xxl-encoder-Q8_0.gguf", "umt5.gguf"):
        assert "use `umt5_xxl_fp8_e4m3fn_scaled.safetensors`" in found[name]
        with pytest.raises(CheckpointRefused, match="use `umt5_xxl_fp8_e4m3fn_scaled"):
            load_text_encoder(tmp_path, torch.float32, CPU, tmp_path / name)


def test_loras_with_names_that_are_not_known_get_a_sentence(tmp_path: Path) -> None:
    layer = "diffusion_model.blocks.0.self_attn.q"
    matrices = (torch.ones(2, 256), torch.ones(256, 2))
    write(tmp_path / "bare.safetensors", dict(zip((f"{layer}.lora_A", f"{layer}.lora_B"), matrices, strict=True)))
    write(tmp_path / "vera.safetensors", {f"{layer}.vera_lambda_b": torch.ones(4), f"{layer}.vera_lambda_d": torch.ones(4)})
    write(tmp_path / "set.safetensors", {f"{layer}.set_weight": torch.ones(4, 4)})
    wrapped = "module._unknown_wrapper.blocks.0.self_attn.q"
    ends = ("lora_A.weight", "lora_B.weight")
    write(tmp_path / "wrapped.safetensors", {f"{wrapped}.{end}": m for end, m in zip(ends, matrices, strict=True)})
    found = {name: (finding.model, "; ".join(finding.faults)) for name, finding in findings(tmp_path).items()}
    assert found["bare.safetensors"] == ("LoRA of rank 2 for Wan 1.3B", "")
    for name in ("vera.safetensors", "set.safetensors"):
        assert "relative of LoRA, which are not supported" in found[name][1]
    assert "which none of the supported models has" in found["wrapped.safetensors"][1]


def test_names_that_nothing_finds_are_told_and_what_a_mac_leaves_is_passed_over(tmp_path: Path) -> None:
    for name in ("Wan.SAFETENSORS", "wan.GGUF", "._wan.safetensors", "._wan.gguf"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7" * 20)
    found = {name: finding.faults for name, finding in findings(tmp_path).items()}
    assert found == {
        "Wan.SAFETENSORS": ("its name must end in .safetensors, in small letters: rename it",),
        "wan.GGUF": ("its name must end in .gguf, in small letters: rename it",),
    }


def test_a_folder_whose_index_names_no_pipeline_is_looked_at(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    shutil.copytree(random_models.text, folder)
    index = json.loads((folder / "model_index.json").read_text())
    del index["_class_name"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (finding,) = check_video_models(tmp_path)
    assert (finding.faults, finding.setting) == ((), "models.wan26.text")


OTHERS: dict[str, tuple[str, int, tuple[str, str]]] = {
    "sdxl": ("lora_unet_down_blocks_1_attentions_0_proj_in", 640, ("lora_down", "lora_up")),
    "flux": ("transformer.single_transformer_blocks.0.attn.to_q", 3072, ("lora_A", "lora_B")),
    "flux-kohya": ("lora_unet_double_blocks_0_img_attn_proj", 3072, ("lora_down", "lora_up")),
    "qwen-image": ("diffusion_model.transformer_blocks.0.attn.to_q", 3072, ("lora_A", "lora_B")),
    "hunyuan-video": ("transformer.double_blocks.0.img_attn_qkv", 3072, ("lora_A", "lora_B")),
    "ltx-video": ("diffusion_model.transformer_blocks.0.attn1.to_q", 2048, ("lora_A", "lora_B")),
    "z-image": ("diffusion_model.layers.0.attention.to_q", 3840, ("lora_A", "lora_B")),
}
"""A layer of LoRAs of other models, which lie in the same folder of ComfyUI, with its width."""


def test_loras_of_other_models_are_passed_over(tmp_path: Path) -> None:
    def pair(layer: str, width: int, ends: tuple[str, str]) -> dict[str, torch.Tensor]:
        return {f"{layer}.{ends[0]}.weight": torch.ones(4, width), f"{layer}.{ends[1]}.weight": torch.ones(width, 4)}

    for name, other in OTHERS.items():
        write(tmp_path / f"{name}.safetensors", pair(*other))
    wan = pair("diffusion_model.blocks.39.self_attn.q", 5120, ("lora_down", "lora_up"))
    write(tmp_path / "ink.safetensors", wan)
    of_animate = wan | pair("diffusion_model.face_adapter.fuser_blocks.0.linear1_q", 5120, ("lora_down", "lora_up"))
    write(tmp_path / "animate.safetensors", of_animate)
    of_image_model = {"diffusion_model.blocks.0.cross_attn.norm_k_img.diff": torch.ones(5120)}
    of_image_model |= {
        "diffusion_model.blocks.1.diff_m": torch.ones(1, 6, 5120),
        "diffusion_model.head.diff_m": torch.ones(1, 2, 5120),
    }
    of_image_model |= {"diffusion_model.vace_blocks.3.after_proj.diff_b": torch.ones(5120)}
    write(tmp_path / "parts.safetensors", wan | of_image_model)
    found = findings(tmp_path)
    assert {name: finding.faults for name, finding in found.items()} == {
        "animate.safetensors": ("changes `face_adapter.fuser_blocks.0.linear1_q`, which none of the supported models has",),
        "ink.safetensors": (),
        "parts.safetensors": (),
    }
    assert all("for Wan 14B" in found[name].model for name in ("ink.safetensors", "parts.safetensors"))


BOTH = ", or both models.wan22_gguf.high_noise_distilled and low_noise_distilled"
EITHER = "the folder of models.wan26.loras; or, if it is for few steps, models.wan26.text_distilled or image_distilled"
LORAS = {
    "Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32": (5120, "models.wan26.text_distilled"),
    "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16": (5120, f"models.wan26.image_distilled{BOTH}"),
    "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-low_noise_model": (5120, "models.wan26.text_distilled_low_noise"),
    "wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022": (5120, "models.wan22_gguf.high_noise_distilled"),
    "Wan21_CausVid_14B_lora_rank32": (5120, f"models.wan26.text_distilled or image_distilled{BOTH}"),
    "Wan21_CausVid_bidirect2_T2V_1_3B_lora_rank32": (1536, "models.wan26.text_distilled"),
    "film_grain": (5120, "the folder of models.wan22_gguf.loras, or of models.wan26.loras if that is 14B"),
    "line_art": (1536, "the folder of models.wan26.loras"),
    "Wan22_TI2V_5B_Turbo_lora_rank_64": (3072, ""),
    "Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1/high_noise_model": (5120, "models.wan22_gguf.high_noise_distilled"),
    "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1/low_noise_model": (5120, "models.wan26.text_distilled_low_noise"),
    "ink-1500-steps": (1536, "the folder of models.wan26.loras"),
    "ink-step00000020": (1536, "the folder of models.wan26.loras"),
    "turbocharged_cars": (1536, "the folder of models.wan26.loras"),
    "lightning_storm_style": (1536, EITHER),
    "rapid_zoom": (1536, EITHER),
    "distilled_water_look": (1536, EITHER),
    "my_style_10steps": (1536, EITHER),
}
LAYERS = {
    "self_attn.q": ("lora_down", 1),
    "self_attn.o": ("lora_down", 1),
    "cross_attn.k": ("lora_down", 1),
    "ffn.0": ("lora_down", 1),
    "ffn.2": ("lora_up", 0),
}
"""Layers that show how wide a model is, each by a matrix and its dimension."""


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("width", [1536, 3072, 5120])
def test_any_layer_shows_the_size_of_the_model_that_a_lora_is_for(layer: str, width: int, tmp_path: Path) -> None:
    matrix, dimension = LAYERS[layer]
    pair = {"lora_down.weight": torch.ones(1, 4), "lora_up.weight": torch.ones(4, 1)}
    pair[f"{matrix}.weight"] = torch.ones(width, 1).T if dimension == 1 else torch.ones(width, 1)
    write(tmp_path / "ink.safetensors", pair, prefix=f"diffusion_model.blocks.0.{layer}.")
    (finding,) = findings(tmp_path).values()
    assert finding.model.endswith({1536: "Wan 1.3B", 3072: "Wan 2.2 5B", 5120: "Wan 14B"}[width])


def test_a_lora_is_for_the_setting_of_its_model(tmp_path: Path) -> None:
    for name, (width, _) in LORAS.items():
        pair = {"lora_down.weight": torch.ones(1, width), "lora_up.weight": torch.ones(width, 1)}
        (tmp_path / f"{name}.safetensors").parent.mkdir(exist_ok=True)
        write(tmp_path / f"{name}.safetensors", pair, prefix="diffusion_model.blocks.0.self_attn.q.")
    found = findings(tmp_path)
    assert {name: found[f"{name}.safetensors"].setting for name in LORAS} == {name: to for name, (_, to) in LORAS.items()}
    assert [name for name, finding in found.items() if finding.faults] == ["Wan22_TI2V_5B_Turbo_lora_rank_64.safetensors"]


def test_no_folder_is_an_error_and_an_empty_one_has_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match="no such folder"):
        findings(tmp_path / "none")
    assert findings(tmp_path) == {}


def test_the_command_prints_the_settings(random_models: RandomCheckpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from serve.cli.main import app

    monkeypatch.setenv("COLUMNS", "80")
    result: Any = CliRunner().invoke(app, ["models", "check", str(random_models.folder)])
    assert result.exit_code == 0, result.output
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in result.output.splitlines() if "│" in line]
    assert "models.wan22_gguf.high_noise" in "".join(setting for _, setting, _, _ in cells), "folded, not cut"
    assert "Wan2.2-I2V-HighNoise-Q8_0.gguf" in "".join(file for _, _, file, _ in cells)
    assert "swapper" not in result.output
