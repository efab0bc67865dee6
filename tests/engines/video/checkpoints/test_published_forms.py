"""CLIP, UMT5 and the VAE in the layouts that are published.

The names in these files are written down here, so that no change of a library moves both sides.
"""

import json
from collections.abc import Callable, Mapping
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
from tests.engines.video.recorder import latents_of

F32 = torch.float32


def random(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def is_in(model: Any, tensor: torch.Tensor) -> bool:
    """Return whether the weights of ``model`` have exactly these numbers."""
    return any(p.shape == tensor.shape and torch.equal(p, tensor) for p in model.state_dict().values())


CLIP = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def clip_state() -> State:
    """Return CLIP's vision model as transformers 4 wrote it, all of it below `vision_model.`."""
    width, inner = CLIP["hidden_size"], CLIP["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (width,),
        "embeddings.patch_embedding.weight": (width, 3, 14, 14),
        "embeddings.position_embedding.weight": (5, width),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for layer in range(CLIP["num_hidden_layers"]):
        at = f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{at}.self_attn.{part}.weight": (width, width), f"{at}.self_attn.{part}.bias": (width,)}
        shapes |= {f"{at}.mlp.fc1.weight": (inner, width), f"{at}.mlp.fc1.bias": (inner,)}
        shapes |= {f"{at}.mlp.fc2.weight": (width, inner), f"{at}.mlp.fc2.bias": (width,)}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{at}.{norm}.weight": (width,), f"{at}.{norm}.bias": (width,)}
    return {f"vision_model.{name}": tensor * 0.1 for name, tensor in random(shapes).items()}


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


UMT5 = {
    "vocab_size": 64,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
_OF_WAN = (
    ("shared.", "token_embedding."),
    ("encoder.final_layer_norm.", "norm."),
    ("encoder.block.", "blocks."),
    (".layer.0.SelfAttention.relative_attention_bias.", ".pos_embedding.embedding."),
    (".layer.0.SelfAttention.", ".attn."),
    (".layer.0.layer_norm.", ".norm1."),
    (".layer.1.layer_norm.", ".norm2."),
    (".layer.1.DenseReluDense.wi_0.", ".ffn.gate.0."),
    (".layer.1.DenseReluDense.wi_1.", ".ffn.fc1."),
    (".layer.1.DenseReluDense.wo.", ".ffn.fc2."),
)


def umt5_state() -> State:
    """Return UMT5's encoder by transformers' names, with `shared.weight` alone, as published."""
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": (64, 32), "encoder.final_layer_norm.weight": (32,)}
    for block in range(2):
        at = f"encoder.block.{block}.layer"
        shapes |= {f"{at}.0.SelfAttention.{part}.weight": (32, 32) for part in "qkvo"}
        shapes |= {f"{at}.0.SelfAttention.relative_attention_bias.weight": (32, 4)}
        shapes |= {f"{at}.{number}.layer_norm.weight": (32,) for number in range(2)}
        shapes |= {f"{at}.1.DenseReluDense.{part}.weight": (48, 32) for part in ("wi_0", "wi_1")}
        shapes |= {f"{at}.1.DenseReluDense.wo.weight": (32, 48)}
    return {name: tensor.half().float() for name, tensor in random(shapes).items()}


def of_wan(state: State) -> State:
    """Return ``state`` by the names of Wan's own file, `models_t5_umt5-xxl-enc-bf16`."""
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in _OF_WAN:
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    return renamed


def scaled(state: State) -> State:
    """Return ``state`` as ComfyUI's `umt5_xxl_fp8_e4m3fn_scaled` has it."""
    stored: State = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn), "spiece_model": torch.zeros(9, dtype=torch.uint8)}
    for name, tensor in state.items():
        if tensor.ndim == 2 and "shared" not in name and "relative" not in name:
            scale = tensor.abs().max() / 448
            stored[name] = (tensor / scale).to(torch.float8_e4m3fn)
            stored[name.replace("weight", "scale_weight")] = scale
        else:
            stored[name] = tensor.half()
    return stored


UMT5_FILES: dict[str, Callable[[State], State]] = {
    "umt5_xxl_fp16": lambda state: (
        {name: t.half() for name, t in state.items()} | {"spiece_model": torch.zeros(9, dtype=torch.uint8)}
    ),
    "umt5-xxl-enc-fp32, both embeddings": lambda state: state | {"encoder.embed_tokens.weight": state["shared.weight"].clone()},
    "the other embedding": lambda state: {name.replace("shared", "encoder.embed_tokens"): t for name, t in state.items()},
    "umt5-xxl-enc, Wan's names": of_wan,
    "in a file with other models": lambda state: (
        {f"text_encoders.umt5xxl.transformer.{name}": t for name, t in state.items()}
        | {"model.diffusion_model.blocks.0.weight": torch.zeros(1), "vae.conv1.weight": torch.zeros(1)}
    ),
    "in a file with the older prefixes": lambda state: (
        {f"cond_stage_model.umt5xxl.transformer.{name}": t for name, t in state.items()}
        | {"model.diffusion_model.blocks.0.weight": torch.zeros(1), "first_stage_model.conv1.weight": torch.zeros(1)}
    ),
    "in a file that ComfyUI saved": lambda state: (
        {f"text_encoders.umt5xxl.transformer.{name}": t for name, t in state.items()}
        | {"text_encoders.umt5xxl.logit_scale": torch.ones(()), "text_encoders.spiece_model": torch.zeros(9, dtype=torch.uint8)}
        | {"text_encoders.clip_l.transformer.text_model.final_layer_norm.weight": torch.ones(4)}
        | {"model.diffusion_model.blocks.0.weight": torch.zeros(1)}
    ),
    "with ComfyUI's scale": lambda state: state | {"logit_scale": torch.ones(())},
    "the whole UMT5": lambda state: (
        state | {"decoder.final_layer_norm.weight": torch.ones(32), "lm_head.weight": torch.ones(64, 32)}
    ),
}


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


def vae_state(blocks: int) -> State:
    """Return a Wan VAE of width 8 by the original release's names, of which a few have a rule.

    The decoder has ``blocks`` + 1 layers in each stage, and an upsampler behind them.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, into: int, *kernel: int) -> None:
        shapes.update({f"{name}.weight": (out, into, *kernel), f"{name}.bias": (out,)})

    def residual(name: str, out: int, into: int) -> None:
        shapes[f"{name}.residual.0.gamma"] = (into, 1, 1, 1)
        conv(f"{name}.residual.2", out, into, 3, 3, 3)
        shapes[f"{name}.residual.3.gamma"] = (out, 1, 1, 1)
        conv(f"{name}.residual.6", out, out, 3, 3, 3)
        if out != into:
            conv(f"{name}.shortcut", out, into, 1, 1, 1)

    def middle(name: str, width: int) -> None:
        residual(f"{name}.0", width, width)
        shapes[f"{name}.1.norm.gamma"] = (width, 1, 1)
        conv(f"{name}.1.to_qkv", 3 * width, width, 1, 1)
        conv(f"{name}.1.proj", width, width, 1, 1)
        residual(f"{name}.2", width, width)

    widths, temporal = (8, 16, 32, 32), (False, True, True)
    conv("encoder.conv1", 8, 3, 3, 3, 3)
    number, width = 0, 8
    for stage, out in enumerate(widths):
        for _ in range(blocks):
            residual(f"encoder.downsamples.{number}", out, width)
            number, width = number + 1, out
        if stage < 3:
            conv(f"encoder.downsamples.{number}.resample.1", out, out, 3, 3)
            if temporal[stage]:
                conv(f"encoder.downsamples.{number}.time_conv", out, out, 3, 1, 1)
            number += 1
    middle("encoder.middle", 32)
    shapes["encoder.head.0.gamma"] = (32, 1, 1, 1)
    conv("encoder.head.2", 32, 32, 3, 3, 3)
    conv("conv1", 32, 32, 1, 1, 1)
    conv("conv2", 16, 16, 1, 1, 1)
    conv("decoder.conv1", 32, 16, 3, 3, 3)
    middle("decoder.middle", 32)
    number, width = 0, 32
    for stage, out in enumerate((32, 32, 16, 8)):
        into = width if stage == 0 else width // 2
        for _ in range(blocks + 1):
            residual(f"decoder.upsamples.{number}", out, into)
            number, into = number + 1, out
        width = out
        if stage < 3:
            conv(f"decoder.upsamples.{number}.resample.1", out // 2, out, 3, 3)
            if temporal[::-1][stage]:
                conv(f"decoder.upsamples.{number}.time_conv", 2 * out, out, 3, 1, 1)
            number += 1
    shapes["decoder.head.0.gamma"] = (8, 1, 1, 1)
    conv("decoder.head.2", 3, 8, 3, 3, 3)
    return {name: 0.1 * tensor for name, tensor in random(shapes).items()}


VAE_FILES = {
    "Wan2.1_VAE": ("", F32),
    "Wan2_1_VAE_bf16": ("model.", torch.bfloat16),
    "wan_2.1_vae, in a file with other models": ("vae.", torch.float16),
    "in a file with the older prefixes": ("first_stage_model.", torch.float16),
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
