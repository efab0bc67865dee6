"""Source videos are read in processes of their own, within limits, to the last frame."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from deployments.errors import RequestRefused
from serve.config import Limits, RunnerSettings
from serve.media.decode.opening import open_source
from serve.media.decode.source import TimedFrames
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.samples import clip, pan, stranger
from serve.media.spool import Spool
from serve.media.workers.pool import WorkerPool
from serve.media.workers.process import WorkerProcess
from serve.pipelines.byte_budget import ByteBudget, Reservation
from serve.pipelines.errors import MediaBusy, MediaOverLimit
from serve.pipelines.source_reader import SourceReader, SourceReaders
from tests.unit.serve.media.make_media import (
    LIMITS,
    animation,
    audio_packets,
    film,
    reencode,
    unnamed_files,
    webm_that_grows,
)
from tests.unit.shared_pool import KeptPool

FILM = clip(stranger(), 17, 8, (64, 48))
PAN = pan(stranger(), 6, 64, 48)


class Reading:
    """Readers over a pool that is closed after the test."""

    def __init__(self) -> None:
        self.pool = KeptPool(2)
        self.memory = ByteBudget(2**30, 30)

    def readers(self, limits: dict[str, Any] | None = None, **settings: Any) -> SourceReaders:
        return SourceReaders(self.pool, self.memory, RunnerSettings(**settings), Limits(**(limits or {})))


@pytest.fixture
def reading() -> Iterator[Reading]:
    made = Reading()
    yield made
    made.pool.close()


def kill_all(pool: WorkerPool) -> None:
    for worker in pool.processes:
        os.kill(worker.pid, signal.SIGKILL)


async def read(source: SourceReader) -> list[TimedFrames]:
    return [chunk async for chunk in source.chunks()]


def assert_same(chunks: list[TimedFrames], data: bytes, rate: Fraction | None = None) -> None:
    source = open_source(data, LIMITS)
    expected = list((source if rate is None else source.at_fps(rate)).chunks())
    assert [chunk.index for chunk in chunks] == [chunk.index for chunk in expected]
    assert [chunk.times for chunk in chunks] == [chunk.times for chunk in expected]
    for got, wanted in zip(chunks, expected, strict=True):
        np.testing.assert_array_equal(got.frames, wanted.frames)


@pytest.mark.parametrize("data", [FILM, animation("GIF", PAN), animation("WEBP", PAN), webm_that_grows()])
@pytest.mark.parametrize("rate", [None, Fraction(20)])
async def test_a_video_is_read_as_it_is_in_this_process(reading: Reading, data: bytes, rate: Fraction | None) -> None:
    async with reading.readers().open("source", data, "caller", rate=rate) as source:
        assert_same(await read(source), data, rate)
        expected = open_source(data, LIMITS) if rate is None else open_source(data, LIMITS).at_fps(rate)
        assert (source.count, source.duration, source.fps) == (expected.count, expected.duration, expected.fps)
        assert not source.has_sound, "nobody has asked for it"
        assert source.claim_bytes(4) > 4 * 4 * 3 * source.pixels


class RecordedBudget(ByteBudget):
    """A budget that notes what is reserved of it."""

    def __init__(self, total: int, patience_s: float) -> None:
        super().__init__(total, patience_s)
        self.counts: list[int] = []

    @asynccontextmanager
    async def reserve(self, count: int, caller: str) -> AsyncIterator[Reservation]:
        self.counts.append(count)
        async with super().reserve(count, caller) as reservation:
            yield reservation


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
async def test_what_opening_an_animation_decodes_is_reserved_before(reading: Reading, kind: str) -> None:
    large = animation(kind, np.random.default_rng(1).integers(0, 255, (2, 700, 800, 3), np.uint8))
    reading.memory = budget = RecordedBudget(2**30, 30)
    async with reading.readers().open("source", large, "caller", rate=None) as source:
        first, second = budget.counts
        assert first < second
        assert second >= 20 * 700 * 800
        assert budget.reserved == 0, "from here on the pipeline's own reservation counts"
        assert_same(await read(source), large)


@pytest.mark.slow
async def test_an_animation_waits_for_memory_and_an_mp4_is_opened_by_its_header(reading: Reading) -> None:
    large = animation("GIF", np.random.default_rng(1).integers(0, 255, (2, 700, 800, 3), np.uint8))
    reading.memory = budget = ByteBudget(2**25, 0.05)
    readers = reading.readers()
    async with budget.reserve(2**25, "another"):
        with pytest.raises(MediaBusy):
            async with readers.open("source", large, "caller", rate=None):
                pass
        async with readers.open("source", FILM, "caller", rate=None) as source:
            assert_same(await read(source), FILM)
    async with readers.open("source", animation("GIF", PAN), "caller", rate=None) as source:
        assert_same(await read(source), animation("GIF", PAN))


async def test_a_file_on_disk_is_read_where_it_is(reading: Reading) -> None:
    spool = Spool.empty()
    spool.file.write(FILM)
    async with reading.readers().open("source", spool, "caller", rate=None) as source:
        assert_same(await read(source), FILM)


async def test_the_process_is_kept_after_a_video_that_was_not_read_to_its_end(reading: Reading) -> None:
    readers = reading.readers()
    async with readers.open("source", FILM, "caller", rate=None) as source, aclosing(source.chunks()) as chunks:
        await anext(chunks)
    (worker,) = reading.pool.processes
    async with readers.open("source", FILM, "caller", rate=None) as source:
        assert_same(await read(source), FILM)
    assert reading.pool.processes == {worker}


@pytest.mark.slow
async def test_reading_goes_on_in_another_process_if_one_is_killed(reading: Reading) -> None:
    async with reading.readers().open("source", FILM, "caller", rate=None) as source:
        async with aclosing(source.chunks()) as chunks:
            got = [await anext(chunks), await anext(chunks)]
            (worker,) = reading.pool.processes
            os.kill(worker.pid, signal.SIGKILL)
            got += [chunk async for chunk in chunks]
        assert_same(got, FILM)


@pytest.mark.slow
async def test_a_video_whose_processes_die_is_refused(reading: Reading) -> None:
    async with reading.readers().open("source", FILM, "caller", rate=None) as source, aclosing(source.chunks()) as chunks:
        await anext(chunks)
        kill_all(reading.pool)
        await anext(chunks)
        kill_all(reading.pool)
        with pytest.raises(RequestRefused, match=r"cannot be decoded.*SIGKILL") as refused:
            await anext(chunks)
    assert refused.value.field == "source"


@pytest.mark.slow
async def test_a_video_that_takes_too_much_time_is_refused(reading: Reading) -> None:
    film = animation("WEBP", pan(stranger(), 30, 640, 480))
    readers = reading.readers({"max_source_cpu_s": 0.1})
    with pytest.raises(MediaOverLimit, match="too much time"):
        async with readers.open("source", film, "caller", rate=None) as source:
            await read(source)


@pytest.mark.slow
async def test_a_rate_that_makes_too_many_frames_names_the_rate(reading: Reading) -> None:
    with pytest.raises(RequestRefused, match="at most 20 are accepted: lower it") as refused:
        async with reading.readers({"max_source_frames": 20}).open("source", FILM, "caller", rate=Fraction(16)):
            raise AssertionError("it was opened")
    assert refused.value.field == "fps"


async def test_no_more_videos_are_read_at_a_time_than_allowed(reading: Reading) -> None:
    readers = reading.readers(max_source_videos=1, max_media_wait_s=0.05)
    async with readers.open("source", FILM, "one", rate=None):
        with pytest.raises(MediaBusy):
            async with readers.open("source", FILM, "other", rate=None):
                raise AssertionError("it was opened")
    async with readers.open("source", FILM, "other", rate=None) as source:
        assert source.count == 17


async def sounding(source: SourceReader) -> Spool:
    """Encode the rest of a video as a draft, and return it with its sound."""
    encoder = Mp4Encoder(source.fps, "ultrafast", 30, seconds=source.duration, draft=True)
    async for chunk in source.chunks():
        encoder.add(chunk.frames, chunk.times)
    draft = encoder.close()
    try:
        return await source.add_sound(draft, encoder.end)
    finally:
        draft.close()


NOISE = film("matroska", "flac", np.random.default_rng(0).normal(0, 0.1, (1, 24_000)).astype(np.float32), "mono")


@pytest.mark.parametrize(
    ("data", "killed"),
    [
        (FILM, "nothing"),
        (NOISE, "nothing"),
        pytest.param(NOISE, "while it decodes", marks=pytest.mark.slow),
        pytest.param(NOISE, "before the sound", marks=pytest.mark.slow),
    ],
)
async def test_the_sound_comes_from_the_process_whichever_that_is(reading: Reading, data: bytes, killed: str) -> None:
    async with reading.readers().open("source", data, "caller", rate=None, sound=True) as source:
        assert source.has_sound
        encoder = Mp4Encoder(source.fps, "veryfast", 18, seconds=source.duration, draft=True)
        async for chunk in source.chunks():
            encoder.add(chunk.frames, chunk.times)
            if killed == "while it decodes" and chunk.index == 0:
                kill_all(reading.pool)
        draft = encoder.close()
        if killed == "before the sound":
            kill_all(reading.pool)
        result = await source.add_sound(draft, encoder.end)
    whole = reencode(open_source(data, LIMITS), source.duration)
    assert audio_packets(result.read()) == audio_packets(whole.read())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
async def test_sound_that_ends_its_processes_is_refused_and_the_pool_is_whole_after(
    reading: Reading, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = WorkerProcess.ask

    async def ask_and_crash(worker: WorkerProcess, operation: str, **arguments: Any) -> Any:
        call = asyncio.ensure_future(ask(worker, operation, **arguments))
        if operation == "add_sound":
            os.kill(worker.pid, number)
        return await call

    readers = reading.readers()
    with monkeypatch.context() as patch:
        patch.setattr(WorkerProcess, "ask", ask_and_crash)
        with pytest.raises(RequestRefused, match=f"cannot be decoded.*{number.name}") as refused:
            async with readers.open("source", FILM, "caller", rate=None, sound=True) as source:
                await sounding(source)
    assert refused.value.field == "source"
    async with readers.open("source", FILM, "caller", rate=None, sound=True) as source:
        assert audio_packets((await sounding(source)).read()) == audio_packets(FILM)


@pytest.mark.slow
async def test_sound_that_takes_too_much_time_is_refused(reading: Reading) -> None:
    silence = film("matroska", "flac", np.zeros((1, 48_000 * 60), np.float32), "mono")
    with pytest.raises(MediaOverLimit, match="too much time") as refused:
        async with reading.readers({"max_source_cpu_s": 0.1}).open(
            "source", silence, "caller", rate=None, sound=True
        ) as source:
            await sounding(source)
    assert refused.value.field == "source"


async def test_a_caller_that_leaves_during_the_sound_leaves_no_process_and_no_file(reading: Reading) -> None:
    files = unnamed_files()
    async with reading.readers().open("source", FILM, "caller", rate=None, sound=True) as source:
        encoder = Mp4Encoder(source.fps, "ultrafast", 30, seconds=source.duration, draft=True)
        async for chunk in source.chunks():
            encoder.add(chunk.frames, chunk.times)
        draft = encoder.close()
        (worker,) = reading.pool.processes
        os.kill(worker.pid, signal.SIGSTOP)  # then it works on the sound for as long as it takes
        call = asyncio.ensure_future(source.add_sound(draft, encoder.end))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not worker.alive
    draft.close()
    del chunk
    assert unnamed_files() <= files
