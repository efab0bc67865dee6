"""`acceleration: distilled`: few steps of another model on its own schedule, as diffusers would run it; refused where there is none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanPipeline
from PIL import Image as Pillow
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from deployments.errors import AccelerationNotSupported, CheckpointRefused
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.acceleration.distilled import EvenEuler, distilled_bytes
from deployments.video.engine import WanEngine
from deployments.video.checkpoints.gguf import load_gguf
from deployments.video.checkpoints.lora import LoraLinear
from deployments.video.memory.plan import GIB, ROOM, Weights, choose
from deployments.video.memory.offload import Residence
from deployments.video.sampling.solver import Solver
from deployments.video.build import build_wan22, build_wan26
from deployments.wire import Image, VideoRequest
from tests.engines.video.conftest import Recorder
from tests.deployments.test_single_file import CPU, published
from tests.engines.random_models import RandomCheckpoints, make_lora


@pytest.fixture(scope="module")
def vace(random_models: RandomCheckpoints) -> WanEngine:
    """A VACE model for both paths, with its LoRA."""
    made = random_models
    return build_wan26(
        Wan26Settings(), Wan26Models(text=str(made.vace), text_distilled=made.vace_lora, image_distilled=made.vace_lora)
    )


def experts(made: RandomCheckpoints, **more: Any) -> Wan22Models:
    return Wan22Models(folder=str(made.a14b), high_noise=made.high_noise, low_noise=made.low_noise, **more)


@pytest.fixture(scope="module")
def a14b(random_models: RandomCheckpoints) -> WanEngine:
    made = random_models
    more = {"high_noise_distilled": made.high_noise_lora, "low_noise_distilled": made.low_noise_lora}
    return build_wan22(Wan22Settings(), experts(made, **more))


@pytest.fixture
def few(small: VideoRequest) -> VideoRequest:
    return replace(small, steps=4, cfg=1.0, acceleration="distilled")


def merge(model: Any, path: Path) -> Any:
    """``model`` with the LoRA of ``path`` in its weights."""
    state = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    for name in {name.split(".lora_")[0] for name in state}:
        try:
            layer = model.get_submodule(name)
        except AttributeError:  # the control blocks of VACE, in the text model
            continue
        layer.weight.data += state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
    return model


def test_steps_are_even_in_the_shifted_schedule() -> None:
    solver = Solver(EvenEuler(shift=5.0), 4)
    assert solver.timesteps == pytest.approx([1000, 937.5, 2500 / 3, 625])
    # Where the velocity is the same all the way, the whole way is gone.
    noise = torch.randn(1, 16, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    latents = solver.start(noise)
    for _ in solver.timesteps:
        latents = solver.step(noise)
    torch.testing.assert_close(latents, torch.zeros_like(noise), rtol=0, atol=1e-5)
    theirs = FlowMatchEulerDiscreteScheduler(shift=5.0)
    theirs.set_timesteps(4)
    assert theirs.timesteps.tolist()[1:3] != pytest.approx(solver.timesteps[1:3], rel=1e-3), "what the class is for"


def test_a_text_video_is_that_of_diffusers_with_merged_weights(
    vace: WanEngine, random_models: RandomCheckpoints, few: VideoRequest
) -> None:
    pipeline = WanPipeline.from_pretrained(random_models.text, scheduler=EvenEuler(shift=5.0), local_files_only=True)
    merge(pipeline.transformer, random_models.vace_lora)
    theirs = pipeline(
        prompt=few.prompt,
        **{"width": 64, "height": 64, "num_frames": 5, "num_inference_steps": 4, "guidance_scale": 1.0},
        **{"output_type": "latent", "generator": torch.Generator().manual_seed(1)},
    ).frames
    torch.testing.assert_close(vace.latents(few, Recorder()), theirs, rtol=1e-4, atol=1e-4)
    exact = vace.latents(replace(few, acceleration="none"), Recorder())
    assert (exact - theirs).abs().mean() > 1e-2, "it is another model"


def test_two_distilled_experts_share_the_steps_as_diffusers_does(
    a14b: WanEngine, random_models: RandomCheckpoints, few: VideoRequest, picture: Image
) -> None:
    made = random_models
    merged = {}
    for part, file, lora in (
        ("transformer", made.high_noise, made.high_noise_lora),
        ("transformer_2", made.low_noise, made.low_noise_lora),
    ):
        expert = load_gguf(file, made.a14b, part, torch.float32, CPU)
        expert.dequantize()
        merged[part] = merge(expert, lora)
    pipeline = WanImageToVideoPipeline.from_pretrained(
        made.a14b, scheduler=EvenEuler(shift=5.0), local_files_only=True, **merged
    )
    ran = []
    for part, expert in merged.items():
        expert.register_forward_hook(lambda *_, part=part: ran.append(part))
    theirs = pipeline(
        image=Pillow.fromarray(picture),
        prompt=few.prompt,
        **{"width": 64, "height": 64, "num_frames": 5, "num_inference_steps": 4, "guidance_scale": 1.0},
        **{"output_type": "latent", "generator": torch.Generator().manual_seed(1)},
    ).frames
    assert ran == ["transformer"] * 2 + ["transformer_2"] * 2
    ours = a14b.latents(replace(few, image=picture), Recorder())
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_video_says_how_it_was_made_and_the_exact_one_is_as_before(
    vace: WanEngine, random_models: RandomCheckpoints, few: VideoRequest, picture: Image
) -> None:
    request = replace(few, image=picture)
    sink = Recorder()
    assert vace.generate(request, sink).acceleration == "distilled; steps=4"
    assert sum(len(chunk.frames) for chunk in sink.chunks) == few.num_frames
    without = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.vace)))
    for exact in (replace(request, acceleration="none"), replace(few, acceleration="none")):
        assert torch.equal(vace.latents(exact, Recorder()), without.latents(exact, Recorder()))
    assert not torch.equal(vace.latents(request, Recorder()), vace.latents(replace(request, acceleration="none"), Recorder()))


def test_models_without_a_distilled_form_refuse(
    wan26: WanEngine, wan22: WanEngine, random_models: RandomCheckpoints, few: VideoRequest, picture: Image
) -> None:
    half = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.vace), text_distilled=random_models.vace_lora))
    half.latents(few, Recorder())
    for engine, request in ((wan26, few), (wan22, replace(few, image=picture)), (half, replace(few, image=picture))):
        with pytest.raises(AccelerationNotSupported, match="no distilled form; leave it out, or send `none`"):
            engine.generate(request, Recorder())


def test_a_whole_distilled_model_takes_the_place_of_the_exact_one(
    random_models: RandomCheckpoints, vace: WanEngine, few: VideoRequest, tmp_path: Path
) -> None:
    whole = merge(WanPipeline.from_pretrained(random_models.text, local_files_only=True).transformer, random_models.vace_lora)
    file = tmp_path / "distilled.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in published(whole).items()}, file)
    engine = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), text_distilled=file))
    torch.testing.assert_close(engine.latents(few, Recorder()), vace.latents(few, Recorder()), rtol=1e-4, atol=1e-4)
    exact = replace(few, acceleration="none")
    assert torch.equal(engine.latents(exact, Recorder()), vace.latents(exact, Recorder()))


def test_a_distilled_pair_is_checked_like_any(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    made = random_models
    with pytest.raises(ValidationError, match="belong together: name both or none"):
        experts(made, high_noise_distilled=made.high_noise_lora)
    with pytest.raises(CheckpointRefused, match="`high_noise_distilled` and `low_noise_distilled` are two files"):
        build_wan22(
            Wan22Settings(), experts(made, high_noise_distilled=made.low_noise_lora, low_noise_distilled=made.low_noise_lora)
        )
    with pytest.raises(CheckpointRefused, match="configured as `high_noise_distilled`, but by its name"):
        build_wan22(
            Wan22Settings(), experts(made, high_noise_distilled=made.low_noise_lora, low_noise_distilled=made.high_noise_lora)
        )
    with pytest.raises(CheckpointRefused, match="configured as `image_distilled`, but this service runs no image-to-video"):
        build_wan26(Wan26Settings(), Wan26Models(text=str(made.text), image_distilled=made.vace_lora))


def test_experts_that_take_turns_share_their_weights_with_their_distilled_forms(
    a14b: WanEngine, few: VideoRequest, picture: Image
) -> None:
    request = replace(few, image=picture)
    exact = replace(request, acceleration="none", cfg=4.0)
    expected, expected_exact = a14b.latents(request, Recorder()), a14b.latents(exact, Recorder())
    path = a14b.image_path
    assert path.distilled is not None
    models = [*path.transformers.values(), *path.distilled.transformers.values()]
    engine = WanEngine(a14b.prompts, a14b.vae, None, path, "", residence=Residence(models, CPU))
    for _ in range(2):
        assert torch.equal(engine.latents(request, Recorder()), expected)
        assert torch.equal(engine.latents(exact, Recorder()), expected_exact)
    for exact_one, view in zip(path.transformers.values(), path.distilled.transformers.values(), strict=True):
        shared = {parameter.data_ptr() for parameter in exact_one.parameters()}
        assert shared <= {parameter.data_ptr() for parameter in view.parameters()}
        assert any(isinstance(layer, LoraLinear) for layer in view.modules())


def test_loras_count_in_the_plan_and_whole_models_as_transformers(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    lora, gguf, whole = random_models.vace_lora, random_models.low_noise, tmp_path / "whole.safetensors"
    save_file({"x": torch.zeros(1)}, whole)
    assert distilled_bytes((lora, None, gguf, whole, lora), 1000) == ((gguf.stat().st_size, 1000), 2 * lora.stat().st_size)
    weights = Weights(2 * GIB, 30 * GIB, (5 * GIB, 5 * GIB))
    free = 32 * GIB + ROOM
    assert choose(weights, free, ("dequantised", "quantised"), "kept").transformers == "dequantised"
    assert choose(replace(weights, loras=1), free, ("dequantised", "quantised"), "kept").transformers == "quantised"


def test_a_lora_of_another_model_stops_the_replica(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    other = make_lora(torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.Linear(8, 8)])}))
    save_file({f"transformer.{name}": tensor for name, tensor in other.items()}, path)
    with pytest.raises(CheckpointRefused, match=r"changes `blocks\.0`, which"):
        build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), text_distilled=path))
