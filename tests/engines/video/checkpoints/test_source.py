"""Folders of two experts: both run, each on its side of the folder's boundary, as in diffusers."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from pydantic import ValidationError
from safetensors.torch import load_file

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.checkpoints.check import check_video_models
from deployments.wire import VideoRequest
from tests.engines.random_models import TRANSFORMER, RandomCheckpoints, make_lora, wan22_models
from tests.engines.video.checkpoints.folders import copy_of
from tests.engines.video.checkpoints.published import make, published, write
from tests.engines.video.diffusers_calls import diffusers_arguments
from tests.engines.video.merged_lora import merge
from tests.engines.video.recorder import image_mode_of, latents_of, text_mode_of


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
    high, low = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for number, path in enumerate((high, low)):
        path.write_bytes(bytes([number]))
    with pytest.raises(CheckpointRefused, match=r"configured as `text_weights_low_noise`, but .* has one transformer"):
        build(text=str(random_models.text), text_weights=high, text_weights_low_noise=low)
    with pytest.raises(ValidationError, match="`text_weights_low_noise` needs `text_weights`"):
        build(text=str(random_models.text), text_weights_low_noise=low)


CONTRADICTIONS: dict[str, tuple[dict[str, Any], bool, str]] = {
    "a folder that the index leaves out": ({}, True, r"transformer_2 holds one"),
    "a folder that the index calls none": ({"transformer_2": [None, None]}, True, r"transformer_2 holds one"),
    "a boundary and a folder": ({"boundary_ratio": 0.875}, True, r"its `boundary_ratio` is 0\.875"),
    "a boundary alone": ({"transformer_2": [None, None], "boundary_ratio": 0.9}, False, r"its `boundary_ratio` is 0\.9"),
    "a boundary that is text": ({"boundary_ratio": "0.9"}, False, r"its `boundary_ratio` is 0\.9"),
}


@pytest.mark.parametrize("setting", ["text", "image"])
@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_an_index_that_hides_an_expert_is_refused(
    a14b_text: Path, random_models: RandomCheckpoints, tmp_path: Path, case: str, setting: str
) -> None:
    entries, has_folder, message = CONTRADICTIONS[case]
    folder = copy_of(a14b_text, tmp_path)
    if not has_folder:
        shutil.rmtree(folder / "transformer_2")
    index = json.loads((folder / "model_index.json").read_text())
    one = {key: value for key, value in index.items() if key not in ("transformer_2", "boundary_ratio")}
    (folder / "model_index.json").write_text(json.dumps(one | entries))
    with pytest.raises(CheckpointRefused, match=rf"model_index\.json: names no `transformer_2`, but .*{message}"):
        build(**{"text": str(random_models.text), setting: str(folder)})
    (finding,) = check_video_models(folder)
    assert re.search(message, finding.faults[0])
    assert finding.setting == ""


@pytest.mark.parametrize("entries", [{}, {"transformer_2": [None, None], "boundary_ratio": None}, {"boundary_ratio": 0.0}])
def test_an_index_of_one_transformer_is_that(random_models: RandomCheckpoints, tmp_path: Path, entries: dict[str, Any]) -> None:
    folder = copy_of(random_models.text, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | entries))
    (folder / "transformer_2").mkdir()
    (folder / "transformer_2" / ".DS_Store").write_bytes(b"Bud1")
    assert [*text_mode_of(build(text=str(folder))).transformers] == ["transformer"]


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize(("part", "expert"), [("transformer", "high"), ("transformer_2", "low")])
def test_an_expert_of_another_folder_does_not_run_alone(
    a14b_text: Path, random_models: RandomCheckpoints, tmp_path: Path, part: str, expert: str, is_file: bool
) -> None:
    linked = tmp_path / "weights"
    linked.symlink_to(a14b_text / part)
    for path in (a14b_text / part, linked):
        named = path / "diffusion_pytorch_model.safetensors" if is_file else path
        with pytest.raises(CheckpointRefused, match=f"`text_weights`, but it is the {expert}-noise one of two experts"):
            build(text=str(random_models.text), text_weights=named)
    alone = shutil.copytree(a14b_text / part, tmp_path / "finetune" / "transformer")
    assert build(text=str(random_models.text), text_weights=alone) is not None


HALVES = (
    "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
    "Wan2_2-T2V-A14B-LOW_fp8_e4m3fn_scaled_KJ.safetensors",
    "low_noise_model/diffusion_pytorch_model-00001-of-00001.safetensors",
    "wan22_t2v_high.safetensors",
    "Wan2_2-T2V-A14B_LN.safetensors",
    "T2V_A14B_L.safetensors",
    "wan22_t2v_hn_fp8.safetensors",
)


@pytest.mark.parametrize("setting", ["text_weights", "image_weights", "text_distilled", "image_distilled"])
@pytest.mark.parametrize("name", HALVES)
def test_one_expert_does_not_run_alone(random_models: RandomCheckpoints, tmp_path: Path, name: str, setting: str) -> None:
    path = tmp_path / "files" / name
    path.parent.mkdir(parents=True)
    model = WanTransformer3DModel(**TRANSFORMER) if setting.startswith("text") else make("VACE", tmp_path / "config")
    if "distilled" in setting:
        write(path, {f"transformer.{key}": tensor for key, tensor in make_lora(model).items()})
    else:
        write(path, published(model))
    files = {"text": str(random_models.text), "image": str(random_models.vace), setting: path}
    with pytest.raises(CheckpointRefused, match=f"configured as `{setting}`, but its name .* one of two experts") as refused:
        build(**files)
    assert f"`{setting}_low_noise` to the low-noise file" in str(refused.value)
    if name == HALVES[0]:
        unnamed = write(tmp_path / "low_step.safetensors", load_file(path))
        assert build(**files | {setting: unnamed}) is not None


@pytest.mark.parametrize(
    "name", ["wan2.2_t2v_high_quality", "wan2.2_t2v_low_steps", "T2V_14B_L", "high/fast", "low/best/model", "LOW/model"]
)
def test_a_whole_model_may_be_low_and_high_in_another_way(random_models: RandomCheckpoints, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, published(WanTransformer3DModel(**TRANSFORMER)))
    assert build(text=str(random_models.text), text_weights=path) is not None


def test_one_expert_under_both_names_is_refused(a14b_text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    shutil.copytree(a14b_text, folder)
    assert build(text=str(folder)) is not None
    shutil.rmtree(folder / "transformer_2")
    shutil.copytree(folder / "transformer", folder / "transformer_2")
    with pytest.raises(CheckpointRefused, match=r"transformer and .*transformer_2 have the same content"):
        build(text=str(folder))


@pytest.mark.parametrize("setting", ["text_weights", "text_distilled"])
def test_swapped_experts_and_one_file_for_both_are_refused(a14b_text: Path, tmp_path: Path, setting: str) -> None:
    model = WanTransformer3DModel(**TRANSFORMER)
    state = published(model) if setting == "text_weights" else {f"transformer.{k}": t for k, t in make_lora(model).items()}
    for folder in ("high_noise_model/fp8", "low_noise_model/fp8", "transformer", "transformer_2"):
        (tmp_path / folder).mkdir(parents=True)
    shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
    pairs = (
        ("Wan2_2-LOW", "Wan2_2-HIGH"),
        (f"low_noise_model/{shard}", f"high_noise_model/{shard}"),
        (f"low_noise_model/fp8/{shard}", f"high_noise_model/fp8/{shard}"),
        (f"transformer_2/{shard}", f"transformer/{shard}"),
        ("Wan22_LN_fp8", "Wan22_HN_fp8"),
        ("wan2.2-fp8L", "wan2.2-fp8H"),
        ("a", "b"),
        *((("one", "one"),) if setting == "text_weights" else (("Wan2_2-HIGH", "Wan2_2-HIGH"),)),
    )
    other = r"(says that it is the other expert(?!.*configured as)|must name two different)"
    for high, low in pairs:
        files = [tmp_path / (name if "/" in name else f"{name}.safetensors") for name in (high, low)]
        for file in files:
            write(file, state)
        with pytest.raises(CheckpointRefused, match=f"{setting}.*{other}"):
            build(text=str(a14b_text), **{setting: files[0], f"{setting}_low_noise": files[1]})


def test_one_lora_may_distil_both_experts(a14b_text: Path, request_: VideoRequest, tmp_path: Path) -> None:
    """Its changes are added to each of them, as by a copy for each that differs in its name."""
    pipeline = WanPipeline.from_pretrained(a14b_text, local_files_only=True)
    lora = {f"transformer.{key}": tensor for key, tensor in make_lora(pipeline.transformer).items()}
    one = write(tmp_path / "lightx2v_T2V_14B_cfg_step_distill_lora_rank64_bf16.safetensors", lora)
    engine = build(text=str(a14b_text), text_distilled=one, text_distilled_low_noise=one)
    distilled = text_mode_of(engine).distilled
    assert distilled is not None
    for part in ("transformer", "transformer_2"):
        merge(getattr(pipeline, part), one)
    pipeline.scheduler = distilled.scheduler
    request = replace(request_, steps=4, cfg=1.0, acceleration="distilled")
    theirs = pipeline(**diffusers_arguments(request)).frames
    torch.testing.assert_close(latents_of(engine, request), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ratio", [None, 0, 1, "0.9", True, [0.9]])
def test_the_boundary_of_wan22_is_checked_when_it_is_loaded(
    random_models: RandomCheckpoints, tmp_path: Path, ratio: object
) -> None:
    folder = copy_of(random_models.a14b, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": ratio}))
    models = wan22_models(random_models).model_copy(update={"folder": str(folder)})
    with pytest.raises(CheckpointRefused, match="no `boundary_ratio` over 0 and under 1"):
        build_wan22(Wan22Settings(), models)
    if ratio is None:
        assert image_mode_of(build_wan22(Wan22Settings(boundary=0.8), models)).boundary == 0.8
