"""The engine: every field of a request counts, and requests are independent."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline
from PIL import Image as Pillow

from deployments.errors import Cancelled, GpuLost, ImageNotSupported, PromptTooLong, VideoTooLarge
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video.acceleration.choice import AccelerationOptions
from deployments.video.acceleration.step_cache import StepCache
from deployments.video.build import build_wan26
from deployments.video.engine import WanEngine
from deployments.wire import FrameChunk, Image, Progress, VideoRequest
from tests.engines.random_models import RandomCheckpoints
from tests.engines.video.diffusers_calls import diffusers_arguments
from tests.engines.video.recorder import Recorder, image_mode_of, latents_of, text_mode_of


def test_the_global_random_state_is_left_alone(wan26: WanEngine, small: VideoRequest, image: Image) -> None:
    """Otherwise results would depend on what else the process does."""
    state = torch.get_rng_state()
    wan26.generate(replace(small, image=image), Recorder())
    assert torch.equal(state, torch.get_rng_state())


def test_events_come_in_order_and_frames_in_groups_of_1_and_4(wan26: WanEngine, small: VideoRequest) -> None:
    sink = Recorder()
    finished = wan26.generate(replace(small, num_frames=9), sink)
    assert [(c.index, c.frames.shape) for c in sink.chunks] == [(0, (1, 64, 64, 3)), (1, (4, 64, 64, 3)), (5, (4, 64, 64, 3))]
    assert all(c.frames.dtype == np.uint8 for c in sink.chunks)
    stages = [(e.stage, e.step) for e in sink.events if isinstance(e, Progress)]
    assert [s for s in stages if s[0] == "denoise"] == [("denoise", 0), ("denoise", 1), ("denoise", 2)]
    assert [s for s in stages if s[0] == "decode"] == [("decode", 0), ("decode", 1), ("decode", 2), ("decode", 3)]
    assert set(finished.seconds) == {"encode", "denoise", "decode"}
    assert min(finished.seconds.values()) > 0


CHANGES: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": "a dog"},
    "negative_prompt": {"negative_prompt": "blurred"},
    "cfg": {"cfg": 2.0},
    "cfg 1": {"cfg": 1.0},
    "steps": {"steps": 3},
    "seed": {"seed": 2},
}


@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("model", ["text", "vace", "a14b"])
def test_each_field_reaches_the_latents(
    wan26: WanEngine, wan22: WanEngine, small: VideoRequest, image: Image, model: str, changed: str
) -> None:
    engine = wan22 if model == "a14b" else wan26
    request = small if model == "text" else replace(small, image=image)
    base = latents_of(engine, request)
    assert torch.equal(base, latents_of(engine, request))
    assert not torch.equal(base, latents_of(engine, replace(request, **CHANGES[changed])))


@pytest.mark.parametrize("model", ["vace", "a14b"])
def test_the_image_reaches_the_latents(
    wan26: WanEngine, wan22: WanEngine, small: VideoRequest, image: Image, model: str
) -> None:
    engine = wan22 if model == "a14b" else wan26
    one, other = (latents_of(engine, replace(small, image=p)) for p in (image, 255 - image))
    assert (one - other).abs().mean() > 1e-4


def test_size_and_length_reach_the_latents(wan26: WanEngine, small: VideoRequest) -> None:
    assert latents_of(wan26, small).shape == (1, 16, 2, 8, 8)
    assert latents_of(wan26, replace(small, width=96, height=80, num_frames=9)).shape == (1, 16, 3, 10, 12)


@pytest.mark.parametrize("batched", [False, True])
def test_both_forwards_in_one_batch_give_the_same_video(
    random_models: RandomCheckpoints, wan26: WanEngine, small: VideoRequest, image: Image, batched: bool
) -> None:
    models = Wan26Models(text=str(random_models.text), image=str(random_models.vace))
    engine = build_wan26(Wan26Settings(batch_guidance=batched), models)
    calls: list[int] = []
    for mode in (text_mode_of(engine), image_mode_of(engine)):
        mode.transformers["transformer"].patch_embedding.register_forward_hook(lambda m, a, out: calls.append(len(out)))
    for request in (small, replace(small, image=image)):
        torch.testing.assert_close(latents_of(engine, request), latents_of(wan26, request), rtol=1e-5, atol=1e-5)
    assert set(calls) == {2 if batched else 1}


@pytest.mark.parametrize("model", ["text", "a14b"])
def test_latents_equal_those_of_diffusers_own_pipeline(
    wan26: WanEngine, wan22: WanEngine, random_models: RandomCheckpoints, small: VideoRequest, image: Image, model: str
) -> None:
    common = diffusers_arguments(small)
    if model == "text":
        theirs = WanPipeline.from_pretrained(random_models.text, local_files_only=True)(**common).frames
        ours = latents_of(wan26, small)
    else:
        experts = image_mode_of(wan22).transformers
        pipeline = WanImageToVideoPipeline.from_pretrained(random_models.a14b, **experts)
        theirs = pipeline(image=Pillow.fromarray(image), **common).frames
        ours = latents_of(wan22, replace(small, image=image))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_experts_switch_at_the_boundary(wan22: WanEngine, small: VideoRequest, image: Image) -> None:
    """With shift 5, sigma = 5 s / (1 + 4 s) is over 0.9 for the first 5 of 12 steps."""
    calls = []
    hooks = [
        expert.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name, expert in image_mode_of(wan22).transformers.items()
    ]
    try:
        latents_of(wan22, replace(small, image=image, steps=12, cfg=1.0))
    finally:
        for hook in hooks:
            hook.remove()
    assert calls == ["transformer"] * 5 + ["transformer_2"] * 7


def test_concurrent_requests_get_the_frames_that_each_gets_alone(wan26: WanEngine, small: VideoRequest, image: Image) -> None:
    requests = [small, replace(small, seed=2, image=image), replace(small, seed=3, prompt="x", image=255 - image)]

    def frames(request: VideoRequest) -> list[FrameChunk]:
        sink = Recorder()
        wan26.generate(request, sink)
        return sink.chunks

    alone = [frames(r) for r in requests]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(frames, requests))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.frames, b.frames)


@pytest.mark.parametrize("with_image", [False, True])
def test_a_request_cancelled_at_any_event_ends_there(
    wan26: WanEngine, small: VideoRequest, image: Image, with_image: bool
) -> None:
    request = replace(small, image=image) if with_image else small
    complete = Recorder()
    wan26.generate(request, complete)
    for count in range(len(complete.events)):
        sink = Recorder(stop_after=count)
        with pytest.raises(Cancelled):
            wan26.generate(request, sink)
        assert len(sink.events) == count


def test_a_text_checkpoint_refuses_an_image_and_says_what_to_configure(
    random_models: RandomCheckpoints, small: VideoRequest, image: Image
) -> None:
    engine = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text)))
    with pytest.raises(ImageNotSupported) as refused:
        engine.generate(replace(small, image=image), Recorder())
    assert refused.value.field == "image"
    assert "VACE" in refused.value.detail


def test_a_vace_checkpoint_alone_makes_the_videos_of_its_text_checkpoint(
    wan26: WanEngine, random_models: RandomCheckpoints, small: VideoRequest
) -> None:
    alone = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.vace)))
    torch.testing.assert_close(latents_of(alone, small), latents_of(wan26, small), rtol=0, atol=1e-6)


def test_running_out_of_memory_refuses_the_request_and_frees_its_tensors(
    wan26: WanEngine, small: VideoRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = latents_of(wan26, small)
    held: list[weakref.ref[torch.Tensor]] = []
    caching = replace(wan26, accelerations=AccelerationOptions(cache_threshold=0.1))
    caches: list[weakref.ref[StepCache]] = []
    make = StepCache.__init__

    def note(cache: StepCache, *options: Any) -> None:
        make(cache, *options)
        caches.append(weakref.ref(cache))

    monkeypatch.setattr(StepCache, "__init__", note)

    def fail(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        held.append(weakref.ref(inputs[0]))
        if len(held) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = text_mode_of(wan26).transformers["transformer"].patch_embedding.register_forward_pre_hook(fail)
    try:
        with pytest.raises(VideoTooLarge) as refused:
            caching.generate(replace(small, acceleration="cache"), Recorder())
    finally:
        hook.remove()
    assert refused.value.field == "num_frames"
    assert "64x64, 5 frames" in refused.value.detail
    assert len(held) == 3
    assert [reference() for reference in held] == [None] * 3
    assert [reference() for reference in caches] == [None], "a cache holds the latents of steps"
    assert torch.equal(latents_of(wan26, small), before)


def test_a_cuda_error_is_a_lost_gpu(wan26: WanEngine, small: VideoRequest) -> None:
    def fail(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: device is lost\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1")

    hook = text_mode_of(wan26).transformers["transformer"].patch_embedding.register_forward_pre_hook(fail)
    try:
        with pytest.raises(GpuLost, match=r"has failed: CUDA error: device is lost$"):
            wan26.generate(small, Recorder())
    finally:
        hook.remove()


def test_a_prompt_that_the_encoder_would_cut_is_refused(wan26: WanEngine, small: VideoRequest) -> None:
    text = "word " * 300
    for field, request in (
        ("prompt", replace(small, prompt=text)),
        ("negative_prompt", replace(small, negative_prompt=text)),
    ):
        with pytest.raises(PromptTooLong) as refused:
            wan26.generate(request, Recorder())
        assert refused.value.field == field


def test_flow_shift_comes_from_the_folder_and_can_be_overridden(
    wan26: WanEngine, random_models: RandomCheckpoints, small: VideoRequest
) -> None:
    assert text_mode_of(wan26).scheduler.config.flow_shift == 8.0
    other = build_wan26(Wan26Settings(flow_shift=3.0), Wan26Models(text=str(random_models.text)))
    assert not torch.equal(latents_of(other, small), latents_of(wan26, small))
