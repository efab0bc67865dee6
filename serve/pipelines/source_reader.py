"""Reads source videos in worker processes: each is leased to one video until it is read."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from fractions import Fraction
from typing import Any

from deployments.errors import RequestRefused
from deployments.wire import Frames
from serve.config import Limits, RunnerSettings
from serve.media.container import is_image
from serve.media.decode.source import CHUNK, TimedFrames
from serve.media.errors import MediaTooLarge
from serve.media.sound import Sound
from serve.media.spool import Media, descriptor_of
from serve.media.workers.messages import Message
from serve.media.workers.pool import WorkerPool
from serve.media.workers.process import WorkerDied, WorkerProcess
from serve.pipelines.byte_budget import ByteBudget
from serve.pipelines.decoder import SLACK_BYTES, SMALL_BYTES, TRIES, deadly
from serve.pipelines.errors import blame
from serve.pipelines.fair_queue import FairQueue

_WORKING_BYTES_PER_PIXEL = 60
"""What a process needs to decode a video: reference frames of the codec, and a chunk of frames."""


class SourceReader:
    """A video that a worker process reads.

    ``count`` is the number of its frames, ``duration`` its seconds, ``pixels`` the size of a frame
    by the header, ``audio`` the sound that belongs to it, or None, and ``damaged`` the number of
    frames so far that could not be decoded, in whose place others are shown.
    """

    def __init__(
        self, pool: WorkerPool, memory: ByteBudget, stack: AsyncExitStack, *, field: str, request: Message, media: Media
    ) -> None:
        self._pool = pool
        self._memory = memory
        self._stack = stack
        self._field = field
        self._request = request
        self._media = media
        self._left_s: float = request.pop("cpu_s")
        self._worker: WorkerProcess | None = None
        self._tries = 0
        self._done = 0
        self._allowed_bytes = SMALL_BYTES
        self._claimed_bytes = 0
        self.count = 0
        self.duration = Fraction(0)
        self.pixels = 0
        self.audio: Sound | None = None
        self.damaged = 0

    @property
    def fps(self) -> Fraction:
        """The number of frames per second; the average if the frame rate varies."""
        return self.count / self.duration

    def claim_bytes(self, chunks: int) -> int:
        """Return the memory that reading takes if ``chunks`` of the chunks are held at a time."""
        return self.pixels * (_WORKING_BYTES_PER_PIXEL + 3 * CHUNK * chunks)

    async def open(self, caller: str) -> None:
        """Read the header; raise RequestRefused or MediaOverLimit for a file that is at fault.

        Opening a GIF or WebP decodes frames, so the memory for that is reserved for ``caller``
        before: a large one is only looked at first. An MP4 or a WebM is opened by its header.
        """
        with blame(self._field):
            if not is_image(self._media):
                await self._ask_again(None)
                return
            async with self._memory.reserve(SMALL_BYTES, caller):
                await self._ask_again(None)
            if self._claimed_bytes > self._allowed_bytes:
                self._allowed_bytes, self._tries = self._claimed_bytes, 0
                async with self._memory.reserve(self._claimed_bytes, caller):
                    await self._ask_again(None)

    async def chunks(self) -> AsyncGenerator[TimedFrames, None]:
        """Decode and yield the frames, ``CHUNK`` at a time."""
        while True:
            with blame(self._field):
                answer, frames = await self._next()
            self.damaged = answer["damaged"]
            if answer["end"]:
                return
            assert frames is not None
            self._done += 1
            yield TimedFrames(answer["index"], frames, tuple(Fraction(time) for time in answer["times"]))

    async def close(self) -> None:
        """Free the decoder, so that the process can be leased again."""
        if self._worker is not None and self._worker.alive:
            with suppress(WorkerDied):
                await self._ask("close")

    async def _next(self) -> tuple[Message, Frames | None]:
        try:
            answer, frames = await self._ask("chunk", skip=0)
        except WorkerDied as died:
            # Decoding is repeatable, so another process continues where this one ended.
            answer, frames = await self._ask_again(died)
        if frames is not None and frames[0].size > 3 * self.pixels:
            raise MediaTooLarge("the video's frames are larger than its header says; re-encode the video")
        return answer, frames

    async def _ask_again(self, died: WorkerDied | None) -> tuple[Message, Frames | None]:
        """Open the file in a new process, and skip the chunks that have been read."""
        while self._tries < TRIES:
            self._tries += 1
            try:
                await self._open_in_process()
                return ({}, None) if died is None else await self._ask("chunk", skip=self._done)
            except WorkerDied as error:
                died = died or error
        assert died is not None
        raise deadly(died)

    async def _open_in_process(self) -> None:
        if self._worker is None:
            self._worker = await self._stack.enter_async_context(self._pool.lease())
        with descriptor_of(self._media) as file:
            header, _ = await self._ask("open", file=file, allowed_bytes=self._allowed_bytes, **self._request)
        self._claimed_bytes = header.get("working_bytes", 0)
        if self._claimed_bytes > self._allowed_bytes:
            return
        self.count = header["count"]
        self.duration = Fraction(header["duration"])
        self.pixels = header["pixels"]
        if (sound := header["sound"]) is not None:
            self.audio = Sound(self._media, Fraction(sound["start"]), copied=sound["copied"])

    async def _ask(self, operation: str, **arguments: Any) -> tuple[Message, Frames | None]:
        assert self._worker is not None
        # Opening an MP4 or a WebM decodes nothing. What it allocates are the tables of the file, in
        # which a few bytes can stand for millions of entries.
        memory_bytes = SLACK_BYTES + (self._allowed_bytes if is_image(self._media) else 0)
        if operation == "chunk":
            memory_bytes += _WORKING_BYTES_PER_PIXEL * int(self._request["max_pixels"])
        try:
            answer, frames = await self._worker.ask(operation, cpu_s=self._left_s, memory_bytes=memory_bytes, **arguments)
        except WorkerDied:
            self._worker = None
            raise
        self._left_s -= answer["cpu_s"]
        return answer, frames


class SourceReaders:
    """Opens source videos, as many at a time as the settings allow."""

    def __init__(self, pool: WorkerPool, memory: ByteBudget, settings: RunnerSettings, limits: Limits) -> None:
        self._pool = pool
        self._memory = memory
        self._places = FairQueue.with_halves(settings.max_source_videos, settings.max_media_wait_s)
        self._limits = limits

    @asynccontextmanager
    async def open(self, field: str, media: Media, caller: str, *, rate: Fraction | None) -> AsyncIterator[SourceReader]:
        """Yield the video in ``media``, resampled to ``rate`` frames per second if it is given.

        Raises RequestRefused or MediaOverLimit for a file that is at fault, here and while it is
        read, and MediaBusy if as many videos as allowed are being read for too long, or if others
        use the memory.
        """
        request = {
            "cpu_s": self._limits.max_source_cpu_s,
            "max_frames": self._limits.max_source_frames,
            "max_seconds": self._limits.max_source_seconds,
            "max_pixels": self._limits.max_source_pixels,
            "max_scans": self._limits.max_image_scans,
            "rate": None if rate is None else str(rate),
        }
        async with self._places.place(caller), AsyncExitStack() as stack:
            reader = SourceReader(self._pool, self._memory, stack, field=field, request=request, media=media)
            try:
                await reader.open(caller)
                if rate is not None:
                    self._check_count(reader.count)
                yield reader
            finally:
                await reader.close()

    def _check_count(self, count: int) -> None:
        limit = self._limits.max_source_frames
        if count > limit:
            raise RequestRefused("fps", f"results in {count} frames; at most {limit} are accepted: lower it")
