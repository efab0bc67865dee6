"""Single files: the layouts and dtypes that are published, and why a file is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from deployments.errors import CheckpointRefused
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video.build import build_wan26
from deployments.video.checkpoints.check import check_video_models
from deployments.video.checkpoints.single_file import load_single_file
from deployments.video.engine import WanEngine
from deployments.wire import Image, VideoRequest
from tests.engines.random_models import RandomCheckpoints
from tests.engines.video.checkpoints.published import CPU, KINDS, State, make, names_in, published, write
from tests.engines.video.recorder import image_mode_of, latents_of, text_mode_of


def scaled(model: Any, convention: str) -> State:
    """Return the weights of ``model``: matrices in scaled float8, the rest in float16."""
    state: State = {}
    for name, tensor in published(model).items():
        if tensor.ndim != 2 or not name.endswith(".weight"):
            state[name] = tensor.half()
            continue
        scale = tensor.abs().max() / 448
        state[name] = (tensor / scale).to(torch.float8_e4m3fn)
        layer = name.removesuffix(".weight")
        if convention == "scale_weight":
            state[f"{layer}.scale_weight"] = scale
            state[f"{layer}.scale_input"] = torch.ones(())
        else:
            state[f"{layer}.weight_scale"] = scale
            quantisation = json.dumps({"format": "float8_e4m3fn"}).encode()
            state[f"{layer}.comfy_quant"] = torch.frombuffer(bytearray(quantisation), dtype=torch.uint8)
    if convention == "scale_weight":
        state["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_layout_is_read_without_a_change(kind: str, tmp_path: Path) -> None:
    model = make(kind, tmp_path)
    loaded = load_single_file(write(tmp_path / "m.safetensors", published(model)), tmp_path, dtype=torch.float32, device=CPU)
    assert type(loaded) is type(model)
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in loaded.parameters())
    assert torch.equal(loaded.rope.freqs_cos, model.rope.freqs_cos)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_comfyuis_prefixes_and_dtypes_are_read(stored: torch.dtype, prefix: str, tmp_path: Path) -> None:
    """Weights without scales. The parts that diffusers keeps in float32 stay in float32."""
    model = make("text", tmp_path)
    path = write(tmp_path / "m.safetensors", published(model, stored), prefix)
    loaded = load_single_file(path, tmp_path, dtype=torch.bfloat16, device=CPU).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name].float(), tensor.to(stored).to(loaded[name].dtype).float()), name
    assert loaded["blocks.0.attn1.to_q.weight"].dtype == torch.bfloat16
    for name in ("condition_embedder.time_embedder.linear_1.weight", "blocks.0.norm2.weight", "scale_shift_table"):
        if name in loaded:
            assert loaded[name].dtype == torch.float32, name


@pytest.mark.parametrize("convention", ["scale_weight", "weight_scale"])
def test_scaled_float8_is_scaled_back(convention: str, tmp_path: Path) -> None:
    model = make("text", tmp_path)
    path = write(tmp_path / "m.safetensors", scaled(model, convention))
    loaded = load_single_file(path, tmp_path, dtype=torch.float32, device=CPU).state_dict()
    for name, tensor in model.state_dict().items():
        error = (loaded[name] - tensor).norm()
        # float8 has three bits of mantissa, float16 eleven.
        assert error <= (0.04 if tensor.ndim == 2 else 1e-3) * tensor.norm(), (name, error)


def test_every_weight_of_a_file_may_have_a_scale_for_each_row(tmp_path: Path) -> None:
    """Also convolutions and norms, whose scales are stored as those of matrices are."""
    model = make("VACE", tmp_path)
    state: State = {}
    expected: State = {}
    for name, tensor in published(model).items():
        state[name] = expected[name] = tensor
        if name.endswith(".weight"):
            scale = tensor.flatten(1).abs().amax(1, keepdim=True) / 448 if tensor.ndim > 1 else tensor.abs()[:, None] / 448
            rows = scale.reshape(-1, *(1 for _ in tensor.shape[1:]))
            state[name] = (tensor / rows).to(torch.float8_e4m3fn)
            state[name.removesuffix("weight") + "weight_scale"] = scale
            expected[name] = state[name].float() * rows
    assert {t.ndim for t in state.values() if t.dtype == torch.float8_e4m3fn} == {1, 2, 5}
    loaded = load_single_file(write(tmp_path / "m.safetensors", state), tmp_path, dtype=torch.float32, device=CPU).state_dict()
    assert all(torch.equal(loaded[ours], expected[name]) for name, ours in names_in(model).items())


FAULTS: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing": (lambda t: t.pop("blocks.1.ffn.2.bias"), "missing tensor `blocks.1.ffn.net.2.bias`"),
    "unknown": (lambda t: t.update(lora_up=torch.ones(1)), "unknown tensor `lora_up`"),
    "another width": (lambda t: t.update({"head.head.weight": torch.ones(32, 256)}), "has shape [32, 256], expected [64, 256]"),
    "no scale": (lambda t: t.pop("blocks.1.ffn.2.scale_weight"), "`blocks.1.ffn.2.weight` has no scale"),
    "no weight": (
        lambda t: t.update({"blocks.9.ffn.2.scale_weight": torch.ones(())}),
        "is a scale without its weight `blocks.9.ffn.2.weight`",
    ),
    "another quantisation": (
        lambda t: t.update({"a.comfy_quant": torch.tensor([*b'{"format": "nvfp4"}'], dtype=torch.uint8)}),
        "only float8 and int8 with one scale",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_is_refused_with_the_reason(fault: str, tmp_path: Path) -> None:
    spoil, message = FAULTS[fault]
    state = scaled(make("text", tmp_path), "scale_weight")
    spoil(state)
    with pytest.raises(CheckpointRefused) as refused:
        load_single_file(write(tmp_path / "m.safetensors", state), tmp_path, dtype=torch.float32, device=CPU)
    assert message in str(refused.value)
    assert "m.safetensors" in str(refused.value)


@pytest.mark.parametrize("others", [("vae.", "text_encoders.", "clip_vision."), ("first_stage_model.", "cond_stage_model.")])
def test_the_transformer_is_read_out_of_a_file_with_all_models(others: tuple[str, ...], tmp_path: Path) -> None:
    model = make("text", tmp_path)
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in published(model).items()}
    path = write(tmp_path / "all.safetensors", state | {f"{prefix}conv1.weight": torch.zeros(1) for prefix in others})
    loaded = load_single_file(path, tmp_path, dtype=torch.float32, device=CPU).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


T5_LAYER = "encoder.block.0.layer.0.SelfAttention.q"
T5_PREFIX = "text_encoders.umt5xxl.transformer."
T5_FORMS: dict[str, State] = {
    "float8_e4m3fn": {"weight": torch.zeros(4, 4, dtype=torch.float8_e4m3fn), "weight_scale": torch.ones(())},
    "nvfp4": {
        "weight": torch.zeros(4, 2, dtype=torch.uint8),
        "weight_scale": torch.zeros(4, 1, dtype=torch.float8_e4m3fn),
        "weight_scale_2": torch.ones(()),
    },
}


@pytest.mark.parametrize("named", [T5_PREFIX, ""])
@pytest.mark.parametrize("form", T5_FORMS)
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float8_e4m3fn])
def test_what_the_header_says_of_another_model_is_passed_over(
    stored: torch.dtype, form: str, named: str, tmp_path: Path
) -> None:
    model = make("text", tmp_path)
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in published(model, stored).items()}
    others = {f"{T5_PREFIX}{T5_LAYER}.{name}": tensor for name, tensor in T5_FORMS[form].items()}
    header = {"_quantization_metadata": json.dumps({"layers": {f"{named}{T5_LAYER}": {"format": form}}})}
    path = tmp_path / "wan2.1_t2v_all.safetensors"
    save_file(state | others, path, header)
    loaded = load_single_file(path, tmp_path, dtype=torch.float32, device=CPU).state_dict()
    assert all(torch.equal(loaded[name], tensor.to(stored).float()) for name, tensor in model.state_dict().items())
    (finding,) = check_video_models(tmp_path)
    assert finding.faults == ()


@pytest.mark.parametrize("named", ["model.diffusion_model.", ""])
def test_what_the_header_says_of_this_model_still_counts(named: str, tmp_path: Path) -> None:
    layer = "blocks.1.ffn.2"
    others = {f"{T5_PREFIX}{T5_LAYER}.weight": torch.zeros(4, 4)}
    state = {f"model.diffusion_model.{name}": t for name, t in published(make("text", tmp_path), torch.float8_e4m3fn).items()}
    for said, message in (("float8_e4m3fn", "has no scale"), ("nvfp4", "only float8 and int8")):
        header = {"_quantization_metadata": json.dumps({"layers": {f"{named}{layer}": {"format": said}}})}
        save_file(state | others, tmp_path / "all.safetensors", header)
        with pytest.raises(CheckpointRefused, match=message):
            load_single_file(tmp_path / "all.safetensors", tmp_path, dtype=torch.float32, device=CPU)


def test_a_truncated_file_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", published(make("text", tmp_path)))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointRefused, match="truncated"):
        load_single_file(path, tmp_path, dtype=torch.float32, device=CPU)
    with pytest.raises(CheckpointRefused, match="no such file"):
        load_single_file(tmp_path / "none.safetensors", tmp_path, dtype=torch.float32, device=CPU)


def test_wan26_reads_single_files_for_both_modes(
    random_models: RandomCheckpoints, wan26: WanEngine, tmp_path: Path, small: VideoRequest, image: Image
) -> None:
    files = {
        name: write(tmp_path / f"{name}.safetensors", published(mode.transformers["transformer"]))
        for name, mode in (("text", text_mode_of(wan26)), ("image", image_mode_of(wan26)))
    }
    models = Wan26Models(
        text=str(random_models.text),
        image=str(random_models.vace),
        text_weights=files["text"],
        image_weights=files["image"],
    )
    engine = build_wan26(Wan26Settings(), models)
    for request in (small, replace(small, image=image)):
        ours, theirs = (latents_of(e, request) for e in (engine, wan26))
        # The weights of a mapped file are aligned differently.
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_image_weights_without_their_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="`image_weights` needs `image`"):
        Wan26Models(text="somewhere", image_weights=tmp_path / "m.safetensors")
