"""`acceleration: distilled` runs few steps of another model, as diffusers would."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanPipeline
from PIL import Image as Pillow
from pydantic import ValidationError
from safetensors.torch import save_file

from deployments.errors import AccelerationNotSupported, CheckpointRefused
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.acceleration.distilled import EvenEuler, distilled_bytes
from deployments.video.build import build_wan22, build_wan26
from deployments.video.checkpoints.gguf import load_gguf
from deployments.video.checkpoints.lora import LoraLinear
from deployments.video.engine import WanEngine
from deployments.video.memory.offload import WeightOffloader
from deployments.video.sampling.solver import Solver
from deployments.wire import Image, VideoRequest
from tests.engines.random_models import RandomCheckpoints, make_lora
from tests.engines.video.checkpoints.published import CPU, published
from tests.engines.video.diffusers_calls import diffusers_arguments
from tests.engines.video.merged_lora import merge
from tests.engines.video.recorder import Recorder, image_mode_of, latents_of


@pytest.fixture(scope="module")
def vace(random_models: RandomCheckpoints) -> WanEngine:
    """The VACE model and its LoRA, for both modes."""
    lora = random_models.vace_lora
    models = Wan26Models(text=str(random_models.vace), text_distilled=lora, image_distilled=lora)
    return build_wan26(Wan26Settings(), models)


def experts(checkpoints: RandomCheckpoints, *, high: Path | None = None, low: Path | None = None) -> Wan22Models:
    """Return both experts with these distilled versions."""
    return Wan22Models(
        folder=str(checkpoints.a14b),
        high_noise=checkpoints.high_noise,
        low_noise=checkpoints.low_noise,
        high_noise_distilled=high,
        low_noise_distilled=low,
    )


@pytest.fixture(scope="module")
def a14b(random_models: RandomCheckpoints) -> WanEngine:
    models = experts(random_models, high=random_models.high_noise_lora, low=random_models.low_noise_lora)
    return build_wan22(Wan22Settings(), models)


@pytest.fixture
def few(small: VideoRequest) -> VideoRequest:
    return replace(small, steps=4, cfg=1.0, acceleration="distilled")


def test_steps_are_evenly_spaced_before_the_shift() -> None:
    solver = Solver(EvenEuler(shift=5.0), 4)
    assert solver.timesteps == pytest.approx([1000, 937.5, 2500 / 3, 625])
    # With a constant velocity equal to the noise, nothing is left of it at the end.
    noise = torch.randn(1, 16, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    latents = solver.start(noise)
    for _ in solver.timesteps:
        latents = solver.step(noise)
    torch.testing.assert_close(latents, torch.zeros_like(noise), rtol=0, atol=1e-5)
    theirs = FlowMatchEulerDiscreteScheduler(shift=5.0)
    theirs.set_timesteps(4)
    assert theirs.timesteps.tolist()[1:3] != pytest.approx(solver.timesteps[1:3], rel=1e-3), "diffusers' own class shifts twice"


def test_text_latents_equal_diffusers_with_merged_weights(
    vace: WanEngine, random_models: RandomCheckpoints, few: VideoRequest
) -> None:
    pipeline = WanPipeline.from_pretrained(random_models.text, scheduler=EvenEuler(shift=5.0), local_files_only=True)
    merge(pipeline.transformer, random_models.vace_lora)
    theirs = pipeline(
        **diffusers_arguments(few),
    ).frames
    torch.testing.assert_close(latents_of(vace, few), theirs, rtol=1e-4, atol=1e-4)
    exact = latents_of(vace, replace(few, acceleration="none"))
    assert (exact - theirs).abs().mean() > 1e-2, "the distilled model must be another one"


def test_distilled_experts_share_the_steps_as_in_diffusers(
    a14b: WanEngine, random_models: RandomCheckpoints, few: VideoRequest, image: Image
) -> None:
    merged = {}
    for part, file, lora in (
        ("transformer", random_models.high_noise, random_models.high_noise_lora),
        ("transformer_2", random_models.low_noise, random_models.low_noise_lora),
    ):
        expert = load_gguf(file, folder=random_models.a14b, part=part, dtype=torch.float32, device=CPU)
        expert.dequantize()
        merged[part] = merge(expert, lora)
    pipeline = WanImageToVideoPipeline.from_pretrained(
        random_models.a14b, scheduler=EvenEuler(shift=5.0), local_files_only=True, **merged
    )
    ran = []
    for part, expert in merged.items():
        expert.register_forward_hook(lambda *_, part=part: ran.append(part))
    theirs = pipeline(
        image=Pillow.fromarray(image),
        **diffusers_arguments(few),
    ).frames
    assert ran == ["transformer"] * 2 + ["transformer_2"] * 2
    ours = latents_of(a14b, replace(few, image=image))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_distilled_video_is_described_and_exact_ones_are_unchanged(
    vace: WanEngine, random_models: RandomCheckpoints, few: VideoRequest, image: Image
) -> None:
    request = replace(few, image=image)
    sink = Recorder()
    assert vace.generate(request, sink).acceleration == "distilled; steps=4"
    assert sum(len(chunk.frames) for chunk in sink.chunks) == few.num_frames
    without = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.vace)))
    for exact in (replace(request, acceleration="none"), replace(few, acceleration="none")):
        assert torch.equal(latents_of(vace, exact), latents_of(without, exact))
    assert not torch.equal(latents_of(vace, request), latents_of(vace, replace(request, acceleration="none")))


def test_models_without_a_distilled_version_refuse(
    wan26: WanEngine, wan22: WanEngine, random_models: RandomCheckpoints, few: VideoRequest, image: Image
) -> None:
    half = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.vace), text_distilled=random_models.vace_lora))
    latents_of(half, few)
    for engine, request in ((wan26, few), (wan22, replace(few, image=image)), (half, replace(few, image=image))):
        with pytest.raises(AccelerationNotSupported, match="no distilled version; leave `acceleration` out or send `none`"):
            engine.generate(request, Recorder())


def test_a_whole_distilled_model_replaces_the_exact_one(
    random_models: RandomCheckpoints, vace: WanEngine, few: VideoRequest, tmp_path: Path
) -> None:
    whole = merge(WanPipeline.from_pretrained(random_models.text, local_files_only=True).transformer, random_models.vace_lora)
    file = tmp_path / "distilled.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in published(whole).items()}, file)
    engine = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), text_distilled=file))
    torch.testing.assert_close(latents_of(engine, few), latents_of(vace, few), rtol=1e-4, atol=1e-4)
    exact = replace(few, acceleration="none")
    assert torch.equal(latents_of(engine, exact), latents_of(vace, exact))


def test_a_distilled_pair_is_checked_like_the_exact_one(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    high, low = random_models.high_noise_lora, random_models.low_noise_lora
    with pytest.raises(ValidationError, match=r"high_noise_distilled.*low_noise_distilled.*both"):
        experts(random_models, high=high)
    with pytest.raises(
        CheckpointRefused, match="`high_noise_distilled` and `low_noise_distilled` must name two different files"
    ):
        build_wan22(Wan22Settings(), experts(random_models, high=random_models.low_noise, low=random_models.low_noise))
    with pytest.raises(CheckpointRefused, match="configured as `high_noise_distilled`, but its name"):
        build_wan22(Wan22Settings(), experts(random_models, high=low, low=low))
    with pytest.raises(CheckpointRefused, match="configured as `high_noise_distilled`, but its name"):
        build_wan22(Wan22Settings(), experts(random_models, high=low, low=high))
    models = Wan26Models(text=str(random_models.text), image_distilled=random_models.vace_lora)
    with pytest.raises(CheckpointRefused, match="configured as `image_distilled`, but this service runs no image-to-video"):
        build_wan26(Wan26Settings(), models)


def test_offloaded_experts_share_their_weights_with_their_distilled_versions(
    a14b: WanEngine, few: VideoRequest, image: Image
) -> None:
    request = replace(few, image=image)
    exact = replace(request, acceleration="none", cfg=4.0)
    expected, expected_exact = latents_of(a14b, request), latents_of(a14b, exact)
    mode = image_mode_of(a14b)
    assert mode.distilled is not None
    models = [*mode.transformers.values(), *mode.distilled.transformers.values()]
    engine = replace(a14b, offloader=WeightOffloader(models, CPU))
    for _ in range(2):
        assert torch.equal(latents_of(engine, request), expected)
        assert torch.equal(latents_of(engine, exact), expected_exact)
    for exact_one, view in zip(mode.transformers.values(), mode.distilled.transformers.values(), strict=True):
        shared = {parameter.data_ptr() for parameter in exact_one.parameters()}
        assert shared <= {parameter.data_ptr() for parameter in view.parameters()}
        assert any(isinstance(layer, LoraLinear) for layer in view.modules())


def test_files_count_as_whole_models_or_as_loras(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    lora, gguf, whole = random_models.vace_lora, random_models.low_noise, tmp_path / "whole.safetensors"
    save_file({"x": torch.zeros(1)}, whole)
    assert distilled_bytes((lora, None, gguf, whole, lora), 1000) == ((gguf.stat().st_size, 1000), 2 * lora.stat().st_size)


def test_a_lora_of_another_model_is_refused(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    other = make_lora(torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.Linear(8, 8)])}))
    save_file({f"transformer.{name}": tensor for name, tensor in other.items()}, path)
    with pytest.raises(CheckpointRefused, match=r"changes `blocks\.0`, which"):
        build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), text_distilled=path))
