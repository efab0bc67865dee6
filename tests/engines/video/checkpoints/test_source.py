"""Folders of two experts: both run, each on its side of the folder's boundary, as in diffusers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from pydantic import ValidationError

from deployments.errors import CheckpointRefused
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video.build import build_wan26
from deployments.wire import VideoRequest
from tests.engines.random_models import TRANSFORMER, RandomCheckpoints, make_lora
from tests.engines.video.acceleration.test_distilled import merge
from tests.engines.video.checkpoints.published import published, write
from tests.engines.video.checkpoints.test_folder import copy_of
from tests.engines.video.diffusers_calls import diffusers_arguments
from tests.engines.video.recorder import latents_of, text_mode_of


@pytest.fixture(scope="module")
def a14b_text(random_models: RandomCheckpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in the form of `Wan-AI/Wan2.2-T2V-A14B-Diffusers`."""
    folder = copy_of(random_models.text, tmp_path_factory.mktemp("a14b"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(41)
        WanTransformer3DModel(**TRANSFORMER).save_pretrained(folder / "transformer_2")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"transformer_2": ["diffusers", "WanTransformer3DModel"], "boundary_ratio": 0.875}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def build(**models: Any) -> Any:
    return build_wan26(Wan26Settings(), Wan26Models(**{name: value for name, value in models.items() if value is not None}))


@pytest.fixture
def request_(small: VideoRequest) -> VideoRequest:
    return replace(small, steps=6)


def test_both_experts_run_as_in_diffusers(a14b_text: Path, request_: VideoRequest) -> None:
    pipeline = WanPipeline.from_pretrained(a14b_text, local_files_only=True)
    assert pipeline.config.boundary_ratio == 0.875
    ran: list[str] = []
    for part in ("transformer", "transformer_2"):
        getattr(pipeline, part).register_forward_hook(lambda *_, part=part: ran.append(part))
    theirs = pipeline(**diffusers_arguments(request_)).frames
    assert set(ran) == {"transformer", "transformer_2"}
    engine = build(text=str(a14b_text))
    mode = text_mode_of(engine)
    assert mode.boundary == 0.875
    ours: list[str] = []
    for part, transformer in mode.transformers.items():
        transformer.register_forward_hook(lambda *_, part=part: ours.append(part))
    torch.testing.assert_close(latents_of(engine, request_), theirs, rtol=1e-4, atol=1e-4)
    assert ours == ran


def test_single_files_replace_both_experts(a14b_text: Path, request_: VideoRequest, tmp_path: Path) -> None:
    engine = build(text=str(a14b_text))
    transformers = text_mode_of(engine).transformers
    high = write(tmp_path / "wan2.2_t2v_high_noise_14B_fp16.safetensors", published(transformers["transformer"]))
    low = write(tmp_path / "wan2.2_t2v_low_noise_14B_fp16.safetensors", published(transformers["transformer_2"]))
    folder = shutil.copytree(a14b_text, tmp_path / "configs", ignore=shutil.ignore_patterns("diffusion_pytorch_model*"))
    shutil.copytree(a14b_text / "vae", folder / "vae", dirs_exist_ok=True)
    files = build(text=str(folder), text_weights=high, text_weights_low_noise=low)
    torch.testing.assert_close(latents_of(files, request_), latents_of(engine, request_), rtol=1e-4, atol=1e-4)
    with pytest.raises(CheckpointRefused, match="configured as `text_weights`, but its name"):
        build(text=str(folder), text_weights=low, text_weights_low_noise=high)
    with pytest.raises(
        CheckpointRefused, match="has two experts; set `text_weights` for the high-noise one and `text_weights_low"
    ):
        build(text=str(folder), text_weights=high)


def test_a_pair_of_loras_distils_both_experts(a14b_text: Path, request_: VideoRequest, tmp_path: Path) -> None:
    files = {}
    pipeline = WanPipeline.from_pretrained(a14b_text, local_files_only=True)
    for part, name in (("transformer", "high"), ("transformer_2", "low")):
        lora = {f"transformer.{key}": tensor for key, tensor in make_lora(getattr(pipeline, part)).items()}
        files[part] = write(tmp_path / f"lora_{name}_noise.safetensors", lora)
        merge(getattr(pipeline, part), files[part])
    engine = build(text=str(a14b_text), text_distilled=files["transformer"], text_distilled_low_noise=files["transformer_2"])
    distilled = text_mode_of(engine).distilled
    assert distilled is not None
    request = replace(request_, steps=4, cfg=1.0, acceleration="distilled")
    pipeline.scheduler = distilled.scheduler
    theirs = pipeline(**diffusers_arguments(request)).frames
    torch.testing.assert_close(latents_of(engine, request), theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(CheckpointRefused, match="has two experts; set `text_distilled`"):
        build(text=str(a14b_text), text_distilled=files["transformer"])


@pytest.mark.parametrize("ratio", [None, 0, 1, "0.875", True])
def test_two_experts_without_a_boundary_are_refused(a14b_text: Path, tmp_path: Path, ratio: object) -> None:
    folder = copy_of(a14b_text, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": ratio}))
    with pytest.raises(CheckpointRefused, match="has two experts, but no `boundary_ratio`"):
        build(text=str(folder))


def test_a_missing_expert_and_one_too_many_are_refused(
    a14b_text: Path, random_models: RandomCheckpoints, tmp_path: Path
) -> None:
    folder = copy_of(a14b_text, tmp_path)
    shutil.rmtree(folder / "transformer_2")
    with pytest.raises(CheckpointRefused, match=r"transformer_2.config\.json: no such file"):
        build(text=str(folder))
    high, low = tmp_path / "high.safetensors", tmp_path / "low.safetensors"
    for number, path in enumerate((high, low)):
        path.write_bytes(bytes([number]))
    with pytest.raises(CheckpointRefused, match=r"configured as `text_weights_low_noise`, but .* has one transformer"):
        build(text=str(random_models.text), text_weights=high, text_weights_low_noise=low)
    with pytest.raises(ValidationError, match="`text_weights_low_noise` needs `text_weights`"):
        build(text=str(random_models.text), text_weights_low_noise=low)
