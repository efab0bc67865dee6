"""A face swap over a stream of frames: detection, tracking, swapping, order and counts."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from deployments.errors import NoFaceFound, RequestRefused
from deployments.settings import Tracking
from deployments.wire import Analysis, Choice, Face, FrameChunk, Frames, Image, Reference, SwapOptions, SwappedChunk
from serve.config import Limits, RunnerSettings
from serve.media.decode.source import TimedFrames
from serve.media.images import encode_image
from serve.pipelines.context import ChunkStep, Step
from serve.pipelines.decoder import Decoder
from serve.pipelines.errors import MediaOverLimit
from serve.pipelines.face_swap import FaceSwap, FaceSwaps, person_pictures
from serve.pipelines.requests import SwapFields
from tests.unit.serve.fake_graph import FakeFaceSwapper, FakeGraph, make_face
from tests.unit.serve.pipelines.request_builders import FACE, make_context

SHORT = Tracking(max_gap=0, smooth_frames=0)
"""A tracker that decides each frame as soon as it has seen it."""


def frames(*levels: int) -> Frames:
    """Return a grey frame for each of ``levels``; a black frame shows no face."""
    return np.stack([np.full((64, 64, 3), level, np.uint8) for level in levels])


async def chunks_of(pixels: Frames, seen: list[int] | None = None) -> AsyncGenerator[TimedFrames, None]:
    """Yield chunks of four frames at 8 frames per second; note the index of each in ``seen``."""
    for index in range(0, len(pixels), 4):
        part = pixels[index : index + 4]
        if seen is not None:
            seen.append(index)
        yield TimedFrames(index, part, tuple(Fraction(index + i, 8) for i in range(len(part))))


def begin_swap(
    swapper: FakeFaceSwapper,
    *,
    choice: Choice | None = None,
    tracking: Tracking = SHORT,
    swap_ahead: int = 2,
    steps: list[Step] | None = None,
) -> FaceSwap:
    return FaceSwap(
        FakeGraph(swapper=swapper).handles().face_swapper,
        RunnerSettings(tracking=tracking, swap_ahead=swap_ahead),
        make_context(steps=steps),
        references=(Reference(frames(200)[0], make_face()),),
        choice=choice or Choice(),
        options=SwapOptions(visibility=0.5),
    )


async def run(swap: FaceSwap, pixels: Frames) -> list[TimedFrames]:
    async with asyncio.timeout(60), aclosing(swap.chunks(chunks_of(pixels))) as chunks:
        return [chunk async for chunk in chunks]


def levels_of(chunks: Sequence[TimedFrames]) -> list[int]:
    """Return the grey level of each frame; a swapped one is white, 255."""
    return [int(frame[0, 0, 0]) for chunk in chunks for frame in chunk.frames]


async def test_frames_with_a_face_are_swapped_and_the_others_are_left_as_they_were() -> None:
    swapper = FakeFaceSwapper()
    swap = begin_swap(swapper)
    chunks = await run(swap, frames(50, 50, 0, 50, 0, 0, 0, 0, 50))
    assert levels_of(chunks) == [255, 255, 0, 255, 0, 0, 0, 0, 255]
    assert [chunk.index for chunk in chunks] == [0, 4, 8]
    assert [time for chunk in chunks for time in chunk.times] == [Fraction(i, 8) for i in range(9)]
    assert swapper.swapped == [0, 8], "a chunk without faces is not sent"
    assert swapper.options == [SwapOptions(visibility=0.5)] * 2
    tally = swap.tally
    assert (tally.frames, tally.swapped, tally.most_faces) == (9, 4, 1)
    assert (tally.engine, tally.restorer) == ("fake", "none")


async def test_the_steps_of_a_chunk_and_the_time_of_every_call_are_reported() -> None:
    steps: list[Step] = []
    swapper = FakeFaceSwapper(restorer="gfpgan")
    swap = begin_swap(swapper, steps=steps)
    await run(swap, frames(50, 50, 50, 50, 50))
    assert {type(step) for step in steps} == {ChunkStep}
    for index in (0, 4):
        of_chunk = [step.kind for step in steps if isinstance(step, ChunkStep) and step.index == index]
        assert of_chunk == ["swap-started", "swapped"]
    meter = swap._context.meter
    assert meter.phases["swap"] == meter.execution_s == 4 * swapper.seconds
    assert swap.tally.restorer == "gfpgan"


class LateFirst(FakeFaceSwapper):
    """A swapper that answers for every first of two chunks after the second one."""

    async def _wait(self, index: int, done: dict[int, asyncio.Event]) -> None:
        if index % 8 == 0:
            await done.setdefault(index + 4, asyncio.Event()).wait()
        done.setdefault(index, asyncio.Event()).set()

    def __init__(self) -> None:
        super().__init__()
        self._swaps: dict[int, asyncio.Event] = {}
        self.answered: list[int] = []

    async def swap(
        self,
        chunk: FrameChunk,
        faces: tuple[tuple[Face, ...], ...],
        reference: Reference,
        options: SwapOptions,
        origin: object = None,
    ) -> SwappedChunk:
        result = await super().swap(chunk, faces, reference, options)
        await self._wait(chunk.index, self._swaps)
        self.answered.append(chunk.index)
        return result


async def test_chunks_keep_their_order_though_replicas_answer_out_of_order() -> None:
    swapper = LateFirst()
    chunks = await run(begin_swap(swapper), frames(*(50 + i for i in range(16))))
    assert swapper.answered == [4, 0, 12, 8]
    assert [chunk.index for chunk in chunks] == [0, 4, 8, 12]
    assert levels_of(chunks) == [255] * 16


class Looks(FakeFaceSwapper):
    """A swapper that notes the grey levels of the frames that it is shown; faces move with them."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[list[int]] = []
        self.boxes: list[list[float]] = []

    async def analyse(self, frames: Image, origin: object = None) -> Analysis:
        self.looked.append([int(frame[0, 0, 0]) for frame in frames])
        found = tuple((make_face((level, 10, level + 40, 60)),) for level in self.looked[-1])
        return Analysis(found, self.seconds, "fake")

    async def swap(
        self,
        chunk: FrameChunk,
        faces: tuple[tuple[Face, ...], ...],
        reference: Reference,
        options: SwapOptions,
        origin: object = None,
    ) -> SwappedChunk:
        self.boxes += [[float(face.box[0]) for face in found] for found in faces]
        return await super().swap(chunk, faces, reference, options)


async def test_between_the_frames_that_are_looked_at_faces_are_interpolated() -> None:
    swapper = Looks()
    tracking = Tracking(detect_every=2, max_gap=0, smooth_frames=0)
    await run(begin_swap(swapper, tracking=tracking), frames(*range(10, 19)))
    assert sorted(swapper.looked) == [[10, 12], [14, 16], [18]]
    assert swapper.boxes == [[float(level)] for level in range(10, 19)]


async def test_the_first_frame_of_a_scene_is_always_looked_at() -> None:
    swapper = Looks()
    tracking = Tracking(detect_every=4, max_gap=0, smooth_frames=0)
    await run(begin_swap(swapper, tracking=tracking), frames(10, 10, 10, 10, 10, 200, 200, 200))
    assert sorted(swapper.looked) == [[10], [10, 200]]
    assert swapper.boxes == [[10.0]] * 5 + [[200.0]] * 3


async def test_a_chunk_in_which_nothing_is_looked_at_costs_no_call() -> None:
    swapper = Looks()
    tracking = Tracking(detect_every=8, max_gap=0, smooth_frames=0)
    chunks = await run(begin_swap(swapper, tracking=tracking), frames(*[30] * 9))
    assert swapper.looked == [[30], [30]]
    assert levels_of(chunks) == [255] * 9


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice("all"), [0.0, 20.0, 40.0]),
        (Choice("largest"), [20.0]),
        (Choice("left"), [0.0]),
        (Choice("right"), [40.0]),
        (Choice("index", 1), [20.0]),
        (Choice("index", 3), None),
    ],
)
async def test_only_the_chosen_faces_are_swapped(choice: Choice, expected: list[float] | None) -> None:
    three = tuple(make_face(box) for box in ((0, 0, 10, 10), (20, 0, 38, 18), (40, 0, 50, 10)))
    identities = np.eye(8, dtype=np.float32)
    faces = tuple(replace(face, embedding=identities[i]) for i, face in enumerate(three))

    class Group(Looks):
        async def analyse(self, frames: Image, origin: object = None) -> Analysis:
            return Analysis(tuple(faces for _ in frames), self.seconds, "fake")

    swapper = Group()
    swap = begin_swap(swapper, choice=choice)
    chunks = await run(swap, frames(50))
    assert [sorted(boxes) for boxes in swapper.boxes] == ([] if expected is None else [expected])
    assert levels_of(chunks) == [50 if expected is None else 255]
    assert (swap.tally.most_faces, swap.tally.swapped) == (3, int(expected is not None))


@pytest.mark.parametrize(("tracking", "ahead"), [(SHORT, 1), (SHORT, 3), (Tracking(), 2), (Tracking(max_gap=17), 2)])
async def test_no_more_chunks_are_held_back_than_the_credit_window_is_widened_by(tracking: Tracking, ahead: int) -> None:
    """A producer whose credits end before the first chunk comes out would wait forever."""
    seen: list[int] = []
    swap = begin_swap(FakeFaceSwapper(), tracking=tracking, swap_ahead=ahead)
    held = swap.held_chunks
    source = chunks_of(frames(*[50] * 200), seen)
    never = asyncio.Event()

    async def credited() -> AsyncIterator[TimedFrames]:
        async for chunk in source:
            if len(seen) > held:
                await never.wait()
            yield chunk

    async with asyncio.timeout(60), aclosing(swap.chunks(credited())) as chunks:
        assert (await anext(chunks)).index == 0
    assert len(seen) <= held + 1
    await source.aclose()


async def test_leaving_a_swap_cancels_the_calls_that_are_under_way() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    class Hanging(FakeFaceSwapper):
        async def analyse(self, frames: Image, origin: object = None) -> Analysis:
            if frames[0, 0, 0, 0] == 60:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()
            return await super().analyse(frames)

    swap = begin_swap(Hanging())
    async with asyncio.timeout(60):
        async with aclosing(swap.chunks(chunks_of(frames(*[50] * 4, *[60] * 4)))) as chunks:
            assert (await anext(chunks)).index == 0
            await begun.wait()
        await ended.wait()


async def test_an_image_is_a_stream_of_one_frame() -> None:
    swap = begin_swap(FakeFaceSwapper())
    result = await swap.image(frames(50))
    np.testing.assert_array_equal(result, frames(255))
    assert (swap.tally.frames, swap.tally.swapped) == (1, 1)


async def test_a_video_without_a_swap_is_refused_only_if_a_face_is_required() -> None:
    swap = begin_swap(FakeFaceSwapper())
    await run(swap, frames(0, 0))
    with pytest.raises(RequestRefused, match="no frame of the video shows a face") as refused:
        swap.require_swapped("source")
    assert refused.value.field == "source"
    await run(other := begin_swap(FakeFaceSwapper()), frames(0, 50))
    other.require_swapped("source")
    assert other.tally.swapped == 1


def png(level: int) -> bytes:
    return encode_image(frames(level)[0], "image/png")


async def begin(graph: FakeGraph, face: Sequence[bytes], **fields: Any) -> FaceSwap:
    swaps = FaceSwaps(graph.handles().face_swapper, RunnerSettings())
    decoder = Decoder(RunnerSettings(), Limits(max_image_pixels=200 * 200))
    request = SwapFields.model_validate(fields)
    async with decoder.pictures(person_pictures(request, face), "caller") as pictures:
        return await swaps.begin(request, pictures, make_context())


class Pictures(FakeFaceSwapper):
    """A swapper that notes which images of a person it is shown."""

    shown: tuple[list[int], ...] = ()

    async def identify(self, images: list[Image], field: str, origin: object = None) -> Reference:
        self.shown += ([int(image[0, 0, 0]) for image in images],)
        return await super().identify(images, field)


@pytest.mark.slow
async def test_all_images_of_the_person_are_shown_to_the_face_swapper() -> None:
    swapper = Pictures()
    swap = await begin(FakeGraph(swapper=swapper), [png(40), png(80)], faces="all", face_restore_visibility=0.25)
    assert swapper.shown == ([40, 80],)
    assert swapper.identified == ["face"]
    assert swap._options == SwapOptions(True, 0.25, 0.5)


async def test_only_the_person_of_target_face_is_replaced() -> None:
    me, you = np.eye(8, dtype=np.float32)[:2]
    faces = tuple(replace(make_face((x, 0, x + 10, 10)), embedding=who) for x, who in ((0, me), (30, you)))

    class Two(Looks):
        async def identify(self, images: list[Image], field: str, origin: object = None) -> Reference:
            reference = await super().identify(images, field)
            return replace(reference, face=replace(reference.face, embedding=you)) if field == "target_face" else reference

        async def analyse(self, frames: Image, origin: object = None) -> Analysis:
            return Analysis(tuple(faces for _ in frames), self.seconds, "fake")

    swapper = Two()
    swap = await begin(FakeGraph(swapper=swapper), [png(40)], target_face=png(50))
    await run(swap, frames(50, 50))
    assert swapper.identified == ["face", "target_face"]
    assert swapper.boxes == [[30.0], [30.0]]


async def test_an_image_without_a_face_names_its_field() -> None:
    graph = FakeGraph()
    with pytest.raises(NoFaceFound) as refused:
        await begin(graph, [png(0)])
    assert refused.value.field == "face"
    with pytest.raises(NoFaceFound) as refused:
        await begin(graph, [png(40)], target_face=png(0))
    assert refused.value.field == "target_face"


async def test_a_damaged_image_is_numbered_if_there_are_several() -> None:
    graph = FakeGraph()
    with pytest.raises(RequestRefused) as refused:
        await begin(graph, [b"not an image"])
    assert refused.value.detail.startswith("the file is not an image")
    with pytest.raises(RequestRefused) as refused:
        await begin(graph, [png(40), FACE[:900]])
    assert refused.value.detail.startswith("image 2 of 2: the image is damaged or truncated")
    large = encode_image(np.zeros((201, 200, 3), np.uint8), "image/png")
    with pytest.raises(MediaOverLimit) as over:
        await begin(graph, [large, png(40)])
    assert over.value.detail.startswith("image 1 of 2: the image has 200 x 201 pixels")
    assert graph.swapper.identified == [], "nothing is sent to a GPU"
