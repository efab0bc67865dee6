"""CLIP, UMT5 and the VAE in the layouts that are published.

The names in these files are written down here, so that no change of a library moves both sides.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from deployments.errors import CheckpointRefused
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video.build import build_wan26
from deployments.video.checkpoints.folder import load_image_encoder, load_text_encoder, load_vae
from deployments.video.engine import WanEngine
from deployments.wire import VideoRequest
from tests.engines.random_models import RandomCheckpoints
from tests.engines.video.checkpoints.published import CPU, State
from tests.engines.video.checkpoints.published_weights import (
    CLIP,
    UMT5,
    UMT5_FILES,
    clip_state,
    scaled,
    umt5_state,
    vae_state,
    write_json,
)
from tests.engines.video.recorder import latents_of

F32 = torch.float32


def is_in(model: Any, tensor: torch.Tensor) -> bool:
    """Return whether the weights of ``model`` have exactly these numbers."""
    return any(p.shape == tensor.shape and torch.equal(p, tensor) for p in model.state_dict().values())


CLIP_FILES: dict[str, Callable[[State], State]] = {
    "vision model": lambda state: state,
    "with the projection": lambda state: state | {"visual_projection.weight": torch.randn(32, 64)},
    "with position ids": lambda state: state | {"vision_model.embeddings.position_ids": torch.arange(5)[None]},
    "without the model's name": lambda state: {name.removeprefix("vision_model."): t for name, t in state.items()},
    "all of CLIP": lambda state: state | {"text_model.final_layer_norm.weight": torch.ones(4), "logit_scale": torch.ones(())},
}


@pytest.mark.parametrize("form", CLIP_FILES)
def test_clip_is_read_in_every_published_layout(form: str, tmp_path: Path) -> None:
    state = clip_state()
    part = tmp_path / "image_encoder"
    write_json(part / "config.json", {**CLIP, "image_size": 28, "patch_size": 14, "hidden_act": "gelu"})
    write_json(tmp_path / "image_processor/preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor"})
    save_file(CLIP_FILES[form](state), part / "model.safetensors")
    model = load_image_encoder(tmp_path, F32, CPU)["image_encoder"]
    assert all(is_in(model, tensor) for tensor in state.values())
    assert len(model.state_dict()) == len(state)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 28, 28), output_hidden_states=True).hidden_states[-2].isfinite().all()
    del state["vision_model.encoder.layers.1.mlp.fc1.weight"]
    save_file(CLIP_FILES[form](state), part / "model.safetensors")
    with pytest.raises(CheckpointRefused, match=r"missing tensor `encoder\.layers\.1\.mlp\.fc1\.weight`"):
        load_image_encoder(tmp_path, F32, CPU)


@pytest.mark.parametrize("form", UMT5_FILES)
def test_umt5_is_read_in_every_published_layout(form: str, tmp_path: Path) -> None:
    state = umt5_state()
    write_json(tmp_path / "config.json", UMT5)
    path = tmp_path / "files" / f"{form}.safetensors"
    path.parent.mkdir()
    save_file(UMT5_FILES[form](state), path)
    model = load_text_encoder(tmp_path, F32, CPU, path)
    assert all(is_in(model, tensor) for tensor in state.values())
    assert model.encoder.embed_tokens.weight is model.shared.weight
    save_file(state, tmp_path / "model.safetensors")
    ids = torch.tensor([[3, 5, 7, 1]])
    with torch.no_grad():
        ours, theirs = (m(ids).last_hidden_state for m in (model, load_text_encoder(tmp_path, F32, CPU)))
    assert torch.equal(ours, theirs)


def test_scaled_umt5_is_scaled_back(tmp_path: Path) -> None:
    state = umt5_state()
    write_json(tmp_path / "config.json", UMT5)
    save_file(scaled(state), tmp_path / "umt5_xxl_fp8_e4m3fn_scaled.safetensors")  # in the folder, by its own name
    loaded = load_text_encoder(tmp_path, F32, CPU).state_dict()
    for name, tensor in state.items():
        assert (loaded[name] - tensor).norm() <= 0.04 * tensor.norm(), name


VAE_FILES = {
    "Wan2.1_VAE": ("", F32),
    "Wan2_1_VAE_bf16": ("model.", torch.bfloat16),
    "wan_2.1_vae, in a file with other models": ("vae.", torch.float16),
    "in a file with the older prefixes": ("first_stage_model.", torch.float16),
    "as a trainer saves it": ("module.vae.model.", F32),
}


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("form", VAE_FILES)
def test_the_vae_is_read_in_every_published_layout(form: str, blocks: int, tmp_path: Path) -> None:
    prefix, dtype = VAE_FILES[form]
    state = {name: tensor.to(dtype).float() for name, tensor in vae_state(blocks).items()}
    write_json(tmp_path / "config.json", {"_class_name": "AutoencoderKLWan", "base_dim": 8, "num_res_blocks": blocks})
    path = tmp_path / "file.safetensors"
    others = {
        "vae.": {"model.diffusion_model.blocks.0.weight": torch.zeros(1)},
        "first_stage_model.": {"cond_stage_model.logit_scale": torch.ones(()), "model_ema.decay": torch.zeros(1)},
    }.get(prefix, {})
    save_file({prefix + name: tensor.to(dtype) for name, tensor in state.items()} | others, path)
    model = load_vae(tmp_path, F32, CPU, path)
    loaded = model.state_dict()
    assert len(loaded) == len(state)
    assert all(is_in(model, tensor) for tensor in state.values())
    stage = blocks + 2  # in the third stage of the decoder, the second layer
    for ours, theirs in {
        "decoder.up_blocks.2.resnets.1.conv2.weight": f"decoder.upsamples.{2 * stage + 1}.residual.6.weight",
        "decoder.up_blocks.1.upsamplers.0.time_conv.bias": f"decoder.upsamples.{stage + stage - 1}.time_conv.bias",
        "decoder.up_blocks.1.resnets.0.conv_shortcut.weight": f"decoder.upsamples.{stage}.shortcut.weight",
        "encoder.mid_block.attentions.0.to_qkv.weight": "encoder.middle.1.to_qkv.weight",
        "quant_conv.weight": "conv1.weight",
        "post_quant_conv.bias": "conv2.bias",
    }.items():
        assert torch.equal(loaded[ours], state[theirs]), ours


def test_a_vae_may_be_narrower_than_that_of_its_folder(tmp_path: Path) -> None:
    """lightx2v's have the names, latents and stages of Wan's own VAE, and fewer channels."""
    config = {"_class_name": "AutoencoderKLWan", "num_res_blocks": 2}
    path = tmp_path / "lightvaew2_1.safetensors"
    save_file(vae_state(2), path)
    for folder, width in (("own", 96), ("narrow", 8)):
        (tmp_path / folder).mkdir()
        write_json(tmp_path / folder / "config.json", {**config, "base_dim": width})
    in_place, expected = (load_vae(tmp_path / folder, F32, CPU, path) for folder in ("own", "narrow"))
    assert in_place.config.base_dim == in_place.config.decoder_base_dim == 8
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    frames = in_place.decode(latents).sample
    assert frames.shape == (1, 3, 5, 32, 32)
    assert torch.equal(frames, expected.decode(latents).sample)


def test_the_settings_replace_the_weights_of_text_encoder_and_vae(
    random_models: RandomCheckpoints, wan26: WanEngine, small: VideoRequest, tmp_path: Path
) -> None:
    encoder, vae = (tmp_path / f"{name}.safetensors" for name in ("umt5", "vae"))
    text_encoder = wan26.prompts.encoder._model
    assert text_encoder is not None
    save_file({name: t.clone() for name, t in text_encoder.state_dict().items()}, encoder)
    tensors = {name: t * (1.5 if "conv_out" in name else 1) for name, t in wan26.vae.state_dict().items()}
    save_file(tensors, vae)
    models = Wan26Models(text=str(random_models.text), text_encoder_weights=encoder, vae_weights=vae)
    engine = build_wan26(Wan26Settings(), models)
    torch.testing.assert_close(latents_of(engine, small), latents_of(wan26, small))
    assert torch.equal(engine.vae.state_dict()["decoder.conv_out.bias"], tensors["decoder.conv_out.bias"])


@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "ckpt"])
def test_pickled_files_are_refused_with_what_to_use(ending: str, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", UMT5)
    path = tmp_path / f"models_t5_umt5-xxl-enc-bf16.{ending}"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointRefused, match=rf"a \.{ending} file is pickled and could run code.*safetensors"):
        load_text_encoder(tmp_path, F32, CPU, path)
    with pytest.raises(CheckpointRefused, match=r"no \*\.safetensors file, only models_t5.*pickled"):
        load_text_encoder(tmp_path, F32, CPU)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"), (b"<!doctype html>" * 9, "a web page")],
)
def test_files_that_were_not_downloaded_say_what_they_are(content: bytes, message: str, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", UMT5)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointRefused, match=message):
        load_text_encoder(tmp_path, F32, CPU)


def test_several_files_are_one_model_only_if_they_say_so(tmp_path: Path) -> None:
    state = umt5_state()
    write_json(tmp_path / "config.json", UMT5)
    names = [*state]
    for number, part in enumerate((names[:9], names[9:]), 1):
        save_file({name: state[name] for name in part}, tmp_path / f"umt5-{number:05d}-of-00002.safetensors")
    shard = tmp_path / "umt5-00002-of-00002.safetensors"
    for weights in (None, shard):  # one shard names the others
        assert torch.equal(load_text_encoder(tmp_path, F32, CPU, weights).shared.weight, state["shared.weight"])
    save_file({name: t.half() for name, t in state.items()}, tmp_path / "umt5_xxl_fp16.safetensors")
    with pytest.raises(CheckpointRefused, match="which are not one model; keep one of them"):
        load_text_encoder(tmp_path, F32, CPU)
    save_file(state, tmp_path / "model.safetensors")  # as the library saves it: others are variants
    assert torch.equal(load_text_encoder(tmp_path, F32, CPU).shared.weight, state["shared.weight"])
    (tmp_path / "umt5-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointRefused, match=r"00001-of-00002\.safetensors: missing, but umt5-00002-of-00002"):
        load_text_encoder(tmp_path, F32, CPU, shard)
