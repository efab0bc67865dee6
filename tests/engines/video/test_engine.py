"""The video engine: every field counts, the experts share the work as the schedule says, requests do not meet."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline

from deployments.errors import Cancelled, ImageNotSupported, PromptTooLong, VideoTooLarge
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video.vae.decode_stream import decode_stream, denormalise
from deployments.video.engine import WanEngine
from deployments.video.vae.view import private_view
from deployments.video.build import build_wan26
from deployments.wire import FrameChunk, Image, Progress, VideoRequest
from tests.engines.video.conftest import Recorder
from tests.engines.random_models import RandomCheckpoints


def test_the_global_random_state_is_left_alone(wan26: WanEngine, small: VideoRequest, picture: Image) -> None:
    """Results would depend on what else the process does."""
    state = torch.get_rng_state()
    wan26.generate(replace(small, image=picture), Recorder())
    assert torch.equal(state, torch.get_rng_state())


def test_events_come_in_order_and_frames_as_1_and_4(wan26: WanEngine, small: VideoRequest) -> None:
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
    wan26: WanEngine, wan22: WanEngine, small: VideoRequest, picture: Image, model: str, changed: str
) -> None:
    engine = wan22 if model == "a14b" else wan26
    request = small if model == "text" else replace(small, image=picture)
    base = engine.latents(request, Recorder())
    assert torch.equal(base, engine.latents(request, Recorder()))
    assert not torch.equal(base, engine.latents(replace(request, **CHANGES[changed]), Recorder()))


@pytest.mark.parametrize("model", ["vace", "a14b"])
def test_the_image_reaches_the_latents(
    wan26: WanEngine, wan22: WanEngine, small: VideoRequest, picture: Image, model: str
) -> None:
    engine = wan22 if model == "a14b" else wan26
    one, other = (engine.latents(replace(small, image=p), Recorder()) for p in (picture, 255 - picture))
    assert (one - other).abs().mean() > 1e-4


def test_size_and_length_reach_the_latents(wan26: WanEngine, small: VideoRequest) -> None:
    assert wan26.latents(small, Recorder()).shape == (1, 16, 2, 8, 8)
    assert wan26.latents(replace(small, width=96, height=80, num_frames=9), Recorder()).shape == (1, 16, 3, 10, 12)


@pytest.mark.parametrize("batched", [False, True])
def test_both_forwards_in_one_batch_give_the_same_video(
    random_models: RandomCheckpoints, wan26: WanEngine, small: VideoRequest, picture: Image, batched: bool
) -> None:
    models = Wan26Models(text=str(random_models.text), image=str(random_models.vace))
    engine = build_wan26(Wan26Settings(batch_guidance=batched), models)
    calls: list[int] = []
    for path in (engine._text, engine._image):
        assert path is not None
        path.transformers["transformer"].patch_embedding.register_forward_hook(lambda m, a, out: calls.append(len(out)))
    for request in (small, replace(small, image=picture)):
        torch.testing.assert_close(
            engine.latents(request, Recorder()), wan26.latents(request, Recorder()), rtol=1e-5, atol=1e-5
        )
    assert set(calls) == {2 if batched else 1}


@pytest.mark.parametrize("model", ["text", "a14b"])
def test_latents_equal_those_of_diffusers_own_pipeline(
    wan26: WanEngine, wan22: WanEngine, random_models: RandomCheckpoints, small: VideoRequest, picture: Image, model: str
) -> None:
    common = {
        "prompt": small.prompt,
        "negative_prompt": small.negative_prompt,
        **{"width": 64, "height": 64, "num_frames": 5, "num_inference_steps": 2, "guidance_scale": 4.0},
        **{"output_type": "latent", "generator": torch.Generator().manual_seed(1)},
    }
    if model == "text":
        theirs = WanPipeline.from_pretrained(random_models.text, local_files_only=True)(**common).frames
        ours = wan26.latents(small, Recorder())
    else:
        from PIL import Image as Pillow

        path = wan22.image_path
        pipeline = WanImageToVideoPipeline.from_pretrained(
            random_models.a14b, transformer=path.transformers["transformer"], transformer_2=path.transformers["transformer_2"]
        )
        theirs = pipeline(image=Pillow.fromarray(picture), **common).frames
        ours = wan22.latents(replace(small, image=picture), Recorder())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_experts_are_called_as_schedule_and_boundary_say(wan22: WanEngine, small: VideoRequest, picture: Image) -> None:
    """Shift 5, 12 steps, boundary 0.9: sigma = 5 s / (1 + 4 s) is over 0.9 for the first 5 of 12."""
    path = wan22._image
    assert path is not None
    calls = []
    hooks = [
        path.transformers[name].register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name in ("transformer", "transformer_2")
    ]
    try:
        wan22.latents(replace(small, image=picture, steps=12, cfg=1.0), Recorder())
    finally:
        for hook in hooks:
            hook.remove()
    assert calls == ["transformer"] * 5 + ["transformer_2"] * 7


def test_two_threads_get_what_each_would_get_alone(wan26: WanEngine, small: VideoRequest, picture: Image) -> None:
    requests = [small, replace(small, seed=2, image=picture), replace(small, seed=3, prompt="x", image=255 - picture)]

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


def test_streamed_decode_is_the_whole_decode_to_the_bit_while_another_request_encodes(
    wan26: WanEngine, small: VideoRequest
) -> None:
    vae = wan26.vae
    latents = denormalise(vae, wan26.latents(replace(small, num_frames=13), Recorder()))
    with torch.no_grad():
        whole = vae.decode(latents, return_dict=False)[0]
        groups = []
        for group in decode_stream(private_view(vae, lambda: None), latents):
            groups.append(group)
            noise = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0))
            private_view(vae, lambda: None).encode(noise)  # another request, in between
            vae.encode(noise)
    assert [g.shape[2] for g in groups] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(groups, dim=2), whole)


@pytest.mark.parametrize("with_image", [False, True])
def test_cancelled_at_any_event_it_ends_there(wan26: WanEngine, small: VideoRequest, picture: Image, with_image: bool) -> None:
    request = replace(small, image=picture) if with_image else small
    complete = Recorder()
    wan26.generate(request, complete)
    for stop_at in range(len(complete.events)):
        sink = Recorder(stop_at)
        with pytest.raises(Cancelled):
            wan26.generate(request, sink)
        assert len(sink.events) == stop_at


def test_text_checkpoint_refuses_an_image_with_the_remedy(
    random_models: RandomCheckpoints, small: VideoRequest, picture: Image
) -> None:
    engine = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text)))
    with pytest.raises(ImageNotSupported) as refused:
        engine.generate(replace(small, image=picture), Recorder())
    assert refused.value.field == "image"
    assert "VACE" in refused.value.detail


def test_vace_alone_makes_the_text_checkpoints_videos(
    wan26: WanEngine, random_models: RandomCheckpoints, small: VideoRequest
) -> None:
    alone = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.vace)))
    torch.testing.assert_close(alone.latents(small, Recorder()), wan26.latents(small, Recorder()), rtol=0, atol=1e-6)


def test_out_of_memory_is_the_requests_fault_and_leaves_nothing_behind(wan26: WanEngine, small: VideoRequest) -> None:
    assert wan26._text is not None
    before = wan26.latents(small, Recorder())
    held: list[weakref.ref[torch.Tensor]] = []

    def fail(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        held.append(weakref.ref(inputs[0]))
        if len(held) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = wan26._text.transformers["transformer"].patch_embedding.register_forward_pre_hook(fail)
    try:
        with pytest.raises(VideoTooLarge) as refused:
            wan26.generate(small, Recorder())
    finally:
        hook.remove()
    assert refused.value.field == "num_frames"
    assert "64x64, 5 frames" in refused.value.detail
    assert len(held) == 3
    assert [reference() for reference in held] == [None] * 3
    assert torch.equal(wan26.latents(small, Recorder()), before)


def test_prompt_over_the_encoders_length_is_refused(wan26: WanEngine, small: VideoRequest) -> None:
    for field in ("prompt", "negative_prompt"):
        with pytest.raises(PromptTooLong) as refused:
            wan26.generate(replace(small, **{field: "word " * 300}), Recorder())
        assert refused.value.field == field


def test_flow_shift_comes_from_the_folder_and_can_be_overridden(
    wan26: WanEngine, random_models: RandomCheckpoints, small: VideoRequest
) -> None:
    assert wan26._text is not None
    assert wan26._text.scheduler.config.flow_shift == 8.0
    other = build_wan26(Wan26Settings(flow_shift=3.0), Wan26Models(text=str(random_models.text)))
    assert not torch.equal(other.latents(small, Recorder()), wan26.latents(small, Recorder()))
