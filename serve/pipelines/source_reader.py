"""Reads source videos in worker processes: each is leased to one video until it is read."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

from deployments.errors import RequestRefused
from deployments.wire import Frames
from serve.config import Limits, RunnerSettings
from serve.media.container import is_image
from serve.media.decode.source import CHUNK, TimedFrames
from serve.media.errors import MediaTooLarge
from serve.media.spool import Media, Spool, descriptor_of
from serve.media.workers.messages import Message
from serve.media.workers.pool import WorkerPool
from serve.media.workers.process import WorkerDied, WorkerProcess
from serve.pipelines.byte_budget import ByteBudget
from serve.pipelines.decoder import SLACK_BYTES, SMALL_BYTES, TRIES, deadly
from serve.pipelines.errors import blame
from serve.pipelines.fair_queue import FairQueue

_WORKING_BYTES_PER_PIXEL = 60
"""What a process needs to decode a video: reference frames of the codec, and a chunk of frames."""

T = TypeVar("T")
_Answer = tuple[Message, Frames | None]


class SourceReader:
    """A video that a worker process reads.

    ``count`` is the number of its frames, ``duration`` its seconds, ``pixels`` the size of a frame
    by the header, and ``damaged`` the number of frames so far that could not be decoded, in whose
    place others are shown. ``has_sound`` says whether there is sound that ``add_sound`` can add.
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
        self.has_sound = False
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
                await self._in_new_process(_nothing)
                return
            async with self._memory.reserve(SMALL_BYTES, caller):
                await self._in_new_process(_nothing)
            if self._claimed_bytes > self._allowed_bytes:
                self._allowed_bytes, self._tries = self._claimed_bytes, 0
                async with self._memory.reserve(self._claimed_bytes, caller):
                    await self._in_new_process(_nothing)

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

    async def add_sound(self, draft: Spool, end: Fraction) -> Spool:
        """Return the MP4 file ``draft``, which ends at ``end`` seconds, with the video's sound.

        The process reads the sound and writes the result: nothing of it is opened here. Raises
        RequestRefused or MediaOverLimit for sound that is at fault.
        """

        async def ask() -> Spool:
            result = Spool.empty()  # a process that ended may have written something into another
            try:
                with descriptor_of(draft) as file, descriptor_of(result) as out:
                    await self._ask("add_sound", file=file, others=[out], end=str(end))
            except BaseException:
                result.close()  # it may be large, and a traceback may keep this frame
                raise
            return result

        with blame(self._field):
            return await self._again_if_it_dies(ask, ask)

    async def close(self) -> None:
        """Free the decoder, so that the process can be leased again."""
        if self._worker is not None and self._worker.alive:
            with suppress(WorkerDied):
                await self._ask("close")

    async def _next(self) -> _Answer:
        # Decoding is repeatable, so another process continues where one ended.
        again = partial(self._ask, "chunk", skip=self._done)
        answer, frames = await self._again_if_it_dies(partial(self._ask, "chunk", skip=0), again)
        if frames is not None and frames[0].size > 3 * self.pixels:
            raise MediaTooLarge("the video's frames are larger than its header says; re-encode the video")
        return answer, frames

    async def _again_if_it_dies(self, ask: Callable[[], Awaitable[T]], again: Callable[[], Awaitable[T]]) -> T:
        """Return what ``ask`` returns, or ``again`` in another process if the process ends."""
        try:
            return await ask()
        except WorkerDied as died:
            return await self._in_new_process(again, died)

    async def _in_new_process(self, ask: Callable[[], Awaitable[T]], died: WorkerDied | None = None) -> T:
        """Open the file in a new process, and return what ``ask`` returns then."""
        while self._tries < TRIES:
            self._tries += 1
            try:
                await self._open_in_process()
                return await ask()
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
        self.has_sound = header["sound"]

    async def _ask(self, operation: str, **arguments: Any) -> _Answer:
        assert self._worker is not None
        # Opening an MP4 or a WebM decodes nothing. What it allocates are the tables of the file, in
        # which a few bytes can stand for millions of entries.
        memory_bytes = SLACK_BYTES + (self._allowed_bytes if is_image(self._media) else 0)
        if operation in ("chunk", "add_sound"):
            memory_bytes += _WORKING_BYTES_PER_PIXEL * int(self._request["max_pixels"])
        try:
            answer, frames = await self._worker.ask(operation, cpu_s=self._left_s, memory_bytes=memory_bytes, **arguments)
        except WorkerDied:
            self._worker = None
            raise
        self._left_s -= answer["cpu_s"]
        return answer, frames


async def _nothing() -> None:
    """Ask nothing of the process, which has opened the file."""


class SourceReaders:
    """Opens source videos, as many at a time as the settings allow."""

    def __init__(self, pool: WorkerPool, memory: ByteBudget, settings: RunnerSettings, limits: Limits) -> None:
        self._pool = pool
        self._memory = memory
        self._places = FairQueue.with_halves(settings.max_source_videos, settings.max_media_wait_s)
        self._limits = limits

    @asynccontextmanager
    async def open(
        self, field: str, media: Media, caller: str, *, rate: Fraction | None, sound: bool = False
    ) -> AsyncIterator[SourceReader]:
        """Yield the video in ``media``, resampled to ``rate`` frames per second if it is given.

        ``sound`` says whether ``add_sound`` will be called; sound that is at fault is refused
        either way. Raises RequestRefused or MediaOverLimit for a file that is at fault, here and
        while it is read, and MediaBusy if as many videos as allowed are being read for too long, or
        if others use the memory.
        """
        request = {
            "cpu_s": self._limits.max_source_cpu_s,
            "max_frames": self._limits.max_source_frames,
            "max_seconds": self._limits.max_source_seconds,
            "max_pixels": self._limits.max_source_pixels,
            "max_scans": self._limits.max_image_scans,
            "rate": None if rate is None else str(rate),
            "sound": sound,
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
