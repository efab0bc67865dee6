"""Videos are encoded while their frames arrive, and freed whatever happens."""

import asyncio
import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

import numpy as np
import pytest

from deployments.errors import RequestRefused
from deployments.telemetry import tracing
from deployments.wire import Frames
from serve.client import decode
from serve.config import Limits, RunnerSettings
from serve.media.decode.opening import open_source
from serve.media.decode.source import TimedFrames
from serve.media.encode.encoder import Encoder
from serve.media.encode.gif import GifEncoder
from serve.media.encode.webp import WebpEncoder
from serve.media.errors import MediaError
from serve.media.samples import clip, stranger
from serve.media.spool import Spool, read_media
from serve.pipelines import encoding
from serve.pipelines.byte_budget import ByteBudget
from serve.pipelines.context import ChunkStep, Step
from serve.pipelines.encoding import VideoWriter, VideoWriters
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.source_reader import SourceReaders
from tests.unit.otlp_receiver import receiver
from tests.unit.serve.media.make_media import LIMITS, audio_packets, decode_all
from tests.unit.serve.pipelines.request_builders import make_context
from tests.unit.shared_pool import SharedPool

FPS = Fraction(8)


def chunk(index: int, count: int, level: int = 100) -> TimedFrames:
    """Return ``count`` frames of noise around ``level``, from frame number ``index``."""
    noise = np.random.default_rng(index).integers(-40, 40, (count, 48, 64, 3))
    return TimedFrames(index, (level + noise).astype(np.uint8), tuple((index + i) / FPS for i in range(count)))


def writers(**settings: object) -> VideoWriters:
    return VideoWriters(RunnerSettings.model_validate(settings), MediaThreads(2))


async def encode(media_type: str, **settings: object) -> tuple[bytes, int]:
    """Return a file of nine frames and its number of frames."""
    async with writers(**settings).open("image", make_context(media_type), fps=FPS, count=9) as writer:
        for index, count in ((0, 1), (1, 4), (5, 4)):
            await writer.add(chunk(index, count))
        data, frames = await writer.close()
    return read_media(data), frames


@pytest.mark.slow
@pytest.mark.parametrize("media_type", ["video/mp4", "image/webp", "image/gif"])
async def test_the_media_type_of_the_request_decides_the_format(media_type: str) -> None:
    data, frames = await encode(media_type)
    decoded = decode(data)
    assert (decoded.media_type, decoded.width, decoded.height, decoded.frames) == (media_type, 64, 48, 9)
    assert frames == 9


async def test_every_chunk_is_observed_and_the_time_is_measured() -> None:
    steps: list[Step] = []
    context = make_context(steps=steps)
    async with writers().open("image", context, fps=FPS, count=5) as writer:
        await writer.add(chunk(0, 1))
        assert steps == [ChunkStep("encoded", 0)]
        await writer.add(chunk(1, 4))
        assert steps == [ChunkStep("encoded", 0), ChunkStep("encoded", 1)]
        await writer.close()
    assert list(context.meter.phases) == ["encode"]
    assert context.meter.phases["encode"] > 0


class CountingMark:
    """A mark that changes nothing, and counts the frames that it gets."""

    def __init__(self) -> None:
        self.frames = 0

    def mark(self, frames: Frames, /) -> Frames:
        """Count frames."""
        self.frames += len(frames)
        return frames

    def mark_luma(self, _: np.ndarray, /) -> None:
        """Count a frame."""
        self.frames += 1


@pytest.mark.parametrize("media_type", ["video/mp4", "image/webp", "image/gif"])
@pytest.mark.parametrize(
    ("late", "changed", "marked"),
    [(False, (), 9), (True, (), 0), (True, (0,), 9), (True, (1,), 8), (True, (5,), 4)],
)
async def test_a_late_mark_begins_with_the_first_chunk_that_a_model_has_changed(
    media_type: str, late: bool, changed: tuple[int, ...], marked: int
) -> None:
    mark = CountingMark()
    context = replace(make_context(media_type), new_mark=lambda: mark)
    async with writers().open("source", context, fps=FPS, count=9, marked_once_changed=late) as writer:
        for index, count in ((0, 1), (1, 4), (5, 4)):
            await writer.add(replace(chunk(index, count), changed=index in changed))
        await writer.close()
    assert mark.frames == marked


async def test_the_encoder_settings_of_the_ingress_are_used() -> None:
    sharp, _ = await encode("video/mp4", h264_crf=10)
    coarse, _ = await encode("video/mp4", h264_crf=45)
    assert len(coarse) < len(sharp) / 3
    fast, _ = await encode("video/mp4", h264_preset="ultrafast")
    slow, _ = await encode("video/mp4", h264_preset="slow")
    assert fast != slow
    quick, _ = await encode("image/webp", webp_method=0)
    small, _ = await encode("image/webp", webp_method=4)
    assert len(small) < len(quick)


async def test_the_audio_and_the_duration_of_a_source_are_kept() -> None:
    film = clip(stranger(), 9, 8, (64, 48))
    readers = SourceReaders(SharedPool(1), ByteBudget(2**30, 30), RunnerSettings(), Limits())
    async with (
        readers.open("source", film, "caller", rate=None, sound=True) as source,
        writers().open("source", make_context(), fps=source.fps, count=source.count, source=source) as writer,
    ):
        async for part in source.chunks():
            await writer.add(part)
        data, count = await writer.close()
    result, original = open_source(read_media(data), LIMITS), open_source(film, LIMITS)
    assert (count, result.duration, decode_all(result)[1]) == (9, original.duration, decode_all(original)[1])
    assert audio_packets(read_media(data)) == audio_packets(film)


async def test_a_result_that_cannot_be_encoded_names_the_field() -> None:
    async with writers().open("source", make_context(), fps=FPS, count=0) as writer:
        with pytest.raises(RequestRefused) as refused:
            await writer.close()
    assert (refused.value.field, refused.value.detail) == ("source", "the video has no frames")


class SlowEncoder(Encoder):
    """An encoder that records its calls; ``add`` ends when the test sets ``release``."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.began, self.release = threading.Event(), threading.Event()
        self.events: list[str] = []

    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        """Encode nothing."""
        self.events.append("add begins")
        self.began.set()
        assert self.release.wait(5)
        self.events.append("add ends")
        if self._error is not None:
            raise self._error

    def close(self) -> bytes:
        """Return a file."""
        return b"file"

    def discard(self) -> None:
        """Note that the encoder was freed."""
        self.events.append("discard")


@pytest.mark.parametrize("error", [None, MediaError("too late to matter")])
async def test_an_encoder_is_freed_only_after_its_thread_has_left_it(error: Exception | None) -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    encoder = SlowEncoder(error)
    writer = VideoWriter(encoder, "image", MediaThreads(1), context=make_context())
    call = asyncio.ensure_future(writer.add(chunk(0, 1)))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    freed = asyncio.ensure_future(writer.discard())
    await asyncio.sleep(0)
    assert "discard" not in encoder.events
    encoder.release.set()
    await freed
    assert encoder.events == ["add begins", "add ends", "discard"]
    del call, freed, writer
    gc.collect()
    assert complaints == [], "asyncio logs an error that nobody waited for"


def test_a_loop_that_ends_frees_no_encoder_that_a_thread_still_uses() -> None:
    encoder = SlowEncoder()

    async def main() -> None:
        writer = VideoWriter(encoder, "image", MediaThreads(1), context=make_context())

        async def write() -> None:
            try:
                await writer.add(chunk(0, 1))
            finally:
                await writer.discard()

        kept.append(asyncio.ensure_future(write()))
        assert await asyncio.to_thread(encoder.began.wait, 30)
        threading.Timer(0.1, encoder.release.set).start()

    kept: list[asyncio.Future[None]] = []
    asyncio.run(main())  # at its end, it cancels all tasks at once
    assert encoder.events == ["add begins", "add ends", "discard"]


@pytest.mark.parametrize("new", [lambda: WebpEncoder(FPS, method=0), lambda: GifEncoder(FPS)])
async def test_a_caller_that_leaves_ends_the_writing_of_the_file(
    new: Callable[[], Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, stopped, reads = threading.Event(), threading.Event(), 0
    encoder = new()
    open_spool, stop = Spool.open, encoder.stop

    def read_slowly(spool: Spool) -> BinaryIO:
        nonlocal reads
        reads += 1
        began.set()
        assert stopped.wait(30)
        return open_spool(spool)

    def tell() -> None:
        stop()
        stopped.set()

    writer = VideoWriter(encoder, "image", MediaThreads(1), context=make_context())
    await writer.add(chunk(0, 40))
    monkeypatch.setattr(Spool, "open", read_slowly)
    monkeypatch.setattr(encoder, "stop", tell)
    call = asyncio.ensure_future(writer.close())
    assert await asyncio.to_thread(began.wait, 30)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await writer.discard()
    assert reads == 1, "no frame is read after the caller has left"


async def test_an_encoder_that_was_never_used_is_freed_at_once() -> None:
    encoder = SlowEncoder()
    await VideoWriter(encoder, "image", MediaThreads(1), context=make_context()).discard()
    assert encoder.events == ["discard"]


async def test_the_span_of_an_encoder_ends_though_its_caller_is_cancelled_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SlowEncoder()
    monkeypatch.setattr(encoding, "WebpEncoder", lambda *_, **__: encoder)
    monkeypatch.setattr(encoder, "frames", 0, raising=False)

    async def write() -> None:
        async with writers().open("image", make_context("image/webp"), fps=FPS, count=1) as writer:
            await writer.add(chunk(0, 1))

    with receiver(monkeypatch) as collector:
        call = asyncio.ensure_future(write())
        assert await asyncio.to_thread(encoder.began.wait, 30)
        for _ in range(2):
            call.cancel()
            for _ in range(5):  # so that the first one arrives before the second
                await asyncio.sleep(0)
        encoder.release.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.to_thread(tracing.flush)
        assert collector.one("encode").status.message == "CancelledError"
