"""A video is generated, swapped and encoded chunk by chunk; refusals precede any GPU work."""

import asyncio
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from deployments.errors import ImageNotSupported, NoFaceFound, RequestRefused
from deployments.settings import Tracking
from deployments.wire import Progress, VideoRequest
from serve.client import decode
from serve.config import AppConfig, Limits, RunnerSettings
from serve.media.decode.opening import open_source
from serve.media.images import encode_image
from serve.media.spool import read_media
from serve.pipelines.context import ChunkStep, RequestContext, Step
from serve.pipelines.errors import MediaOverLimit
from serve.pipelines.pipelines import make_pipelines
from serve.pipelines.result import Result
from tests.unit.serve.fake_graph import WINDOW, FakeFaceSwapper, FakeGraph
from tests.unit.serve.media.make_media import LIMITS, decode_all, unnamed_files
from tests.unit.serve.pipelines.request_builders import FACE, make_context, pipelines_over, video_request


async def run(graph: FakeGraph, context: RequestContext | None = None, **fields: Any) -> Result:
    """Return the result of a request, with its file in memory."""
    pipelines = pipelines_over(graph, max_image_pixels=40_000)
    model = pipelines.handles.video["wan26"]
    result = await pipelines.video.run(model, video_request(**fields), context or make_context())
    return replace(result, data=read_media(result.data))


async def test_the_request_of_the_model_is_that_of_the_caller_with_the_seed_of_the_context() -> None:
    graph = FakeGraph()
    await run(graph, make_context(seed=11), num_frames=12, acceleration="fp8", guidance_until=0.75, cache_every=3)
    (request,) = graph.wan26.requests
    assert request == VideoRequest(
        prompt="a cat",
        negative_prompt="blurred",
        width=64,
        height=48,
        num_frames=9,
        steps=2,
        cfg=4.0,
        seed=11,
        image=None,
        acceleration="fp8",
        cache_every=3,
        guidance_until=0.75,
    )


async def test_frames_are_encoded_in_order_at_the_rate_of_the_request() -> None:
    graph = FakeGraph()
    result = await run(graph)
    assert (result.media_type, result.frames, result.fps, result.seed) == ("video/mp4", 9, Fraction(8), 7)
    assert result.swap is None
    images, times = decode_all(open_source(result.data, LIMITS))
    assert [round(float(image.mean()) / 10) for image in images] == [1, 2, 2, 2, 2, 6, 6, 6, 6]
    assert times == [Fraction(i, 8) for i in range(9)]


async def test_every_chunk_gives_a_credit_back_once_it_is_encoded() -> None:
    graph, steps = FakeGraph(), list[Step]()
    await run(graph, make_context(steps=steps))
    assert (graph.consumer.opened, graph.consumer.released, graph.consumer.closed) == ([WINDOW], 3, 1)
    chunks = [step for step in steps if isinstance(step, ChunkStep)]
    assert chunks == [ChunkStep(kind, index) for index in (0, 1, 5) for kind in ("decoded", "encoded")]
    assert [step for step in steps if isinstance(step, Progress)] == [
        Progress("start", 1, 1),
        Progress("denoise", 1, 2),
        Progress("denoise", 2, 2),
    ]


async def test_an_image_covers_the_video_and_is_cropped_around_its_centre() -> None:
    graph = FakeGraph()
    image = np.zeros((96, 192, 3), np.uint8)
    image[:, 32:160] = (200, 100, 50)  # 4:3, as the video; the black margins are cut off
    await run(graph, image=encode_image(image, "image/png"))
    sent = graph.wan26.requests[0].image
    assert sent is not None
    assert sent.shape == (48, 64, 3)
    np.testing.assert_allclose(sent[:, 2:-2].reshape(-1, 3).mean(axis=0), (200, 100, 50), atol=1)


async def test_a_swap_works_on_the_chunks_of_the_model_and_widens_its_window() -> None:
    graph = FakeGraph()
    result = await run(graph, face=FACE, restore_face=False)
    assert result.swap is not None
    assert (result.swap.frames, result.swap.swapped) == (9, 9)
    images, _ = decode_all(open_source(result.data, LIMITS))
    assert min(int(image.min()) for image in images) > 250, "every frame is white"
    tracking = Tracking()
    delay = max(tracking.max_gap, tracking.smooth_frames)
    assert graph.consumer.opened == [WINDOW + RunnerSettings().swap_ahead + delay // 4 + 2]
    assert graph.consumer.released == 3
    assert [options.restore for options in graph.swapper.options] == [False] * 3


async def test_swapping_begins_while_the_model_still_decodes() -> None:
    steps: list[Step] = []
    graph = FakeGraph()
    tracking = Tracking(max_gap=0, smooth_frames=0)
    config = AppConfig(runner=RunnerSettings(tracking=tracking, swap_ahead=1))
    pipelines = make_pipelines(config, graph.handles())
    await pipelines.video.run(
        pipelines.handles.video["wan26"], video_request(num_frames=41, face=FACE), make_context(steps=steps)
    )
    chunks = [step for step in steps if isinstance(step, ChunkStep)]
    last_decoded = max(i for i, step in enumerate(chunks) if step.kind == "decoded")
    assert chunks.index(ChunkStep("encoded", 0)) < last_decoded
    for index in (0, 1, 5, 37):
        kinds = [step.kind for step in chunks if step.index == index]
        assert kinds == ["decoded", "swap-started", "swapped", "encoded"]


async def test_a_face_that_is_required_must_be_in_some_frame() -> None:
    graph = FakeGraph(swapper=FakeFaceSwapper(faces=()))
    with pytest.raises(RequestRefused, match="`require_face` is true") as refused:
        await run(graph, face=FACE, require_face=True)
    assert refused.value.field == "image"
    result = await run(graph, face=FACE)
    assert result.swap is not None
    assert (result.swap.swapped, result.swap.frames) == (0, 9)


async def test_webp_is_encoded_if_the_context_says_so() -> None:
    result = await run(FakeGraph(), make_context("image/webp"))
    assert decode(read_media(result.data)).media_type == result.media_type == "image/webp"


BLACK = encode_image(np.zeros((40, 40, 3), np.uint8), "image/png")
LARGE = encode_image(np.zeros((201, 200, 3), np.uint8), "image/png")


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        ({"image": b"not an image"}, RequestRefused, "image"),
        ({"image": LARGE}, MediaOverLimit, "image"),
        ({"face": b"not an image"}, RequestRefused, "face"),
        ({"face": BLACK}, NoFaceFound, "face"),
        ({"face": FACE, "target_face": BLACK}, NoFaceFound, "target_face"),
    ],
)
async def test_an_image_that_cannot_be_used_is_refused_before_the_video_model_is_called(
    fields: dict[str, Any], kind: type[RequestRefused], field: str
) -> None:
    graph = FakeGraph()
    with pytest.raises(kind) as refused:
        await run(graph, **fields)
    assert refused.value.field == field
    assert graph.wan26.requests == []
    assert graph.consumer.opened == []


async def test_an_error_of_the_model_ends_the_request_and_leaves_nothing_behind() -> None:
    graph = FakeGraph()
    graph.wan26.error = ImageNotSupported("image", "configure an image-to-video checkpoint")
    before = unnamed_files()
    with pytest.raises(ImageNotSupported):
        await run(graph)
    assert graph.consumer.closed == 1
    assert unnamed_files() == before, "the unfinished file is freed"


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    graph = FakeGraph()
    graph.wan26.gate = asyncio.Event()
    denoised = asyncio.Event()

    def observe(step: Step) -> None:
        if step == Progress("denoise", 2, 2):
            denoised.set()

    before, context = unnamed_files(), make_context()
    call = asyncio.ensure_future(run(graph, replace(context, observe=observe)))
    async with asyncio.timeout(60):
        await denoised.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert graph.consumer.closed == 1
    assert unnamed_files() == before
    assert len(asyncio.all_tasks()) == 1
    graph.wan26.gate = None
    assert (await run(graph)).frames == 9


async def test_requests_at_the_same_time_do_not_mix() -> None:
    graph = FakeGraph()
    sizes = [(64, 48), (48, 64), (80, 48)]
    results = await asyncio.gather(*(run(graph, width=width, height=height) for width, height in sizes))
    decoded = [decode(read_media(result.data)) for result in results]
    assert [(file.width, file.height) for file in decoded] == sizes


async def test_the_limit_for_an_image_is_that_of_the_settings() -> None:
    graph = FakeGraph()
    pipelines = make_pipelines(AppConfig(limits=Limits(max_image_pixels=40_200)), graph.handles())
    result = await pipelines.video.run(pipelines.handles.video["wan26"], video_request(image=LARGE), make_context())
    assert result.frames == 9
