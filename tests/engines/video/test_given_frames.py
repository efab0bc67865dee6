"""A last frame, the beginning of a video and a whole source video: as diffusers' own pipelines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel, WanVACEPipeline, WanVideoToVideoPipeline
from PIL import Image as Pillow
from transformers import CLIPImageProcessor, CLIPVisionModel

from deployments.errors import ImageNotSupported
from deployments.settings import Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.engine import WanEngine
from deployments.wire import Frames, Image, Progress, VideoRequest
from tests.engines.random_models import RandomCheckpoints, make_scheduler, wan22_models
from tests.engines.video.checkpoints.folders import change_weights, image_folder
from tests.engines.video.checkpoints.published import published, write
from tests.engines.video.diffusers_calls import diffusers_arguments
from tests.engines.video.recorder import Recorder, image_mode_of, latents_of


@pytest.fixture
def frames() -> Frames:
    return np.random.default_rng(4).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)


def pillow(frames: Frames) -> list[Any]:
    return [Pillow.fromarray(frame) for frame in frames]


def through_vace(random_models: RandomCheckpoints, request: VideoRequest, given: dict[int, Image]) -> torch.Tensor:
    """Return the latents of diffusers' VACE pipeline with frames that are ``given`` by number."""
    pipeline = WanVACEPipeline.from_pretrained(random_models.vace, local_files_only=True)
    numbers = range(request.num_frames)
    grey = Pillow.new("RGB", (request.width, request.height), (128, 128, 128))
    latents: torch.Tensor = pipeline(
        video=[Pillow.fromarray(given[number]) if number in given else grey for number in numbers],
        mask=[Pillow.new("L", grey.size, 0 if number in given else 255) for number in numbers],
        **diffusers_arguments(request),
    ).frames
    return latents


def test_vace_takes_a_first_and_a_last_frame(
    wan26: WanEngine, random_models: RandomCheckpoints, small: VideoRequest, frames: Frames
) -> None:
    first, last = frames[0], frames[1]
    both = latents_of(wan26, replace(small, image=first, last_image=last))
    theirs = through_vace(random_models, small, {0: first, 4: last})
    torch.testing.assert_close(both, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both, latents_of(wan26, replace(small, image=first)))
    alone = latents_of(wan26, replace(small, last_image=last))
    torch.testing.assert_close(alone, through_vace(random_models, small, {4: last}), rtol=1e-4, atol=1e-4)


def test_a_model_that_was_not_trained_for_a_last_frame_refuses_it(
    random_models: RandomCheckpoints, small: VideoRequest, frames: Frames
) -> None:
    models = Wan26Models(text=str(random_models.text), image=str(random_models.vace), last_image=False)
    engine = build_wan26(Wan26Settings(), models)
    with pytest.raises(ImageNotSupported, match="not trained to end with a given frame") as refused:
        engine.generate(replace(small, image=frames[0], last_image=frames[1]), Recorder())
    assert refused.value.field == "last_image"
    assert latents_of(engine, replace(small, image=frames[0])).isfinite().all()


@pytest.mark.parametrize("count", [1, 3])
def test_vace_continues_a_video(
    wan26: WanEngine, random_models: RandomCheckpoints, small: VideoRequest, frames: Frames, count: int
) -> None:
    ours = latents_of(wan26, replace(small, lead=frames[:count]))
    theirs = through_vace(random_models, small, dict(enumerate(frames[:count])))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    if count == 1:
        assert torch.equal(ours, latents_of(wan26, replace(small, image=frames[0])))


def test_a_36_channel_model_takes_a_last_frame(random_models: RandomCheckpoints, small: VideoRequest, frames: Frames) -> None:
    engine = build_wan22(Wan22Settings(), wan22_models(random_models))
    request = replace(small, steps=4, image=frames[0], last_image=frames[1])
    ours = latents_of(engine, request)
    experts = image_mode_of(engine).transformers
    pipeline = WanImageToVideoPipeline.from_pretrained(random_models.a14b, local_files_only=True, **experts)
    theirs = pipeline(
        image=Pillow.fromarray(frames[0]), last_image=Pillow.fromarray(frames[1]), **diffusers_arguments(request)
    ).frames
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(ours, latents_of(engine, replace(request, last_image=None)))


def under_published_names(tensors: dict[str, torch.Tensor]) -> None:
    """Rename CLIP's tensors as the published files have them: all below `vision_model.`."""
    for name in [name for name in tensors if not name.startswith("vision_model.")]:
        tensors[f"vision_model.{name}"] = tensors.pop(name)
    tensors["visual_projection.weight"] = torch.ones(8, 64)


@pytest.mark.parametrize("batched", [False, True])
def test_a_model_with_clip_sees_a_first_and_a_last_frame(
    random_models: RandomCheckpoints, small: VideoRequest, frames: Frames, tmp_path: Path, batched: bool
) -> None:
    """The form of Wan 2.1 FLF2V 14B: the encoder's tokens of both frames, with a position each."""
    folder = image_folder(random_models, tmp_path, clip=True, positions=514)
    transformer = WanTransformer3DModel.from_pretrained(folder / "transformer", local_files_only=True)
    torch.nn.init.normal_(transformer.condition_embedder.image_embedder.pos_embed, generator=torch.Generator().manual_seed(3))
    pipeline = WanImageToVideoPipeline.from_pretrained(
        random_models.a14b,
        transformer=transformer,
        transformer_2=None,
        boundary_ratio=None,
        image_encoder=CLIPVisionModel.from_pretrained(folder / "image_encoder", local_files_only=True),
        image_processor=CLIPImageProcessor.from_pretrained(folder / "image_processor", local_files_only=True),
        scheduler=make_scheduler(8.0),
        local_files_only=True,
    )
    change_weights(folder / "image_encoder" / "model.safetensors", under_published_names)
    file = write(tmp_path / "wan2.1_flf2v_720p_14B_fp32.safetensors", published(transformer))
    models = Wan26Models(text=str(random_models.text), image=str(folder), image_weights=file)
    engine = build_wan26(Wan26Settings(batch_guidance=batched), models)
    request = replace(small, image=frames[0], last_image=frames[1])
    ours = latents_of(engine, request)
    theirs = pipeline(
        image=Pillow.fromarray(frames[0]), last_image=Pillow.fromarray(frames[1]), **diffusers_arguments(request)
    ).frames
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    if batched:
        return
    swapped = replace(request, image=frames[1], last_image=frames[0])
    assert not torch.allclose(ours, latents_of(engine, swapped), atol=1e-2)
    with pytest.raises(ImageNotSupported, match="between a first and a last frame; send both"):
        engine.generate(replace(request, last_image=None), Recorder())
    engine.warm_up(64, 64, 5)


@pytest.mark.parametrize(("steps", "strength", "count"), [(6, 0.5, 3), (6, 1.0, 6), (6, 0.9, 5), (6, 0.2, 1)])
def test_a_video_of_a_video_goes_through_the_last_steps(
    wan26: WanEngine,
    random_models: RandomCheckpoints,
    small: VideoRequest,
    frames: Frames,
    steps: int,
    strength: float,
    count: int,
) -> None:
    request = replace(small, steps=steps, source=frames, strength=strength)
    sink = Recorder()
    ours = wan26.sample(wan26.start(request, sink))
    pipeline = WanVideoToVideoPipeline.from_pretrained(random_models.text, local_files_only=True)
    theirs = pipeline(
        video=pillow(frames), strength=strength, **{k: v for k, v in diffusers_arguments(request).items() if k != "num_frames"}
    ).frames
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    denoised = [event for event in sink.events if isinstance(event, Progress) and event.stage == "denoise"]
    assert denoised[-1] == Progress("denoise", count, count)


def test_so_little_strength_that_no_step_would_run_runs_one(wan26: WanEngine, small: VideoRequest, frames: Frames) -> None:
    request = replace(small, steps=4, source=frames, strength=0.01)
    assert request.denoise_steps == 1
    assert latents_of(wan26, request).isfinite().all()


def test_a_distilled_model_makes_a_video_of_a_video(
    random_models: RandomCheckpoints, small: VideoRequest, frames: Frames
) -> None:
    models = Wan26Models(text=str(random_models.vace), text_distilled=random_models.vace_lora)
    engine = build_wan26(Wan26Settings(), models)
    request = replace(small, steps=4, cfg=1.0, acceleration="distilled", source=frames, strength=0.5)
    assert engine.generate(request, Recorder()).acceleration == "distilled; steps=2"
    near, far = (latents_of(engine, replace(request, strength=strength)) for strength in (0.25, 1.0))
    assert not torch.allclose(near, far)


def test_models_that_cannot_are_refused(
    wan22: WanEngine, random_models: RandomCheckpoints, small: VideoRequest, frames: Frames
) -> None:
    text = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text)))
    cases = (
        (wan22, replace(small, lead=frames[:1]), "source", "only a VACE model continues a video"),
        (wan22, replace(small, last_image=frames[0]), "last_image", "only a VACE model takes a last frame without"),
        (wan22, replace(small, source=frames), "source", "does not accept a video as input"),
        (text, replace(small, image=frames[0], last_image=frames[1]), "image", "no image-to-video checkpoint"),
    )
    for engine, request, field, message in cases:
        with pytest.raises(ImageNotSupported, match=message) as refused:
            engine.generate(request, Recorder())
        assert refused.value.field == field
