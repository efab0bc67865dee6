"""Encodes a video while its frames arrive."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any, TypeVar

from deployments.task_end import wait_for_end
from deployments.telemetry import tracing
from serve.config import RunnerSettings
from serve.media.decode.source import TimedFrames
from serve.media.encode.encoder import Encoder, FrameMark, LateMark, MarkedEncoder
from serve.media.encode.gif import GifEncoder
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.encode.webp import WebpEncoder
from serve.media.spool import Media, Spool
from serve.pipelines.context import ChunkStep, RequestContext
from serve.pipelines.errors import blame
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.meter import Stopwatch
from serve.pipelines.source_reader import SourceReader
from serve.provenance.visible_label import VisibleLabel

T = TypeVar("T")


class VideoWriter:
    """An encoder that works in a thread. Errors of the file name ``field``.

    The file is given the sound of ``sounding``, which needs an ``Mp4Encoder`` that makes a draft.
    ``late`` is the encoder's mark if it begins with the first chunk that a model has changed.
    """

    def __init__(
        self,
        encoder: Encoder,
        field: str,
        threads: MediaThreads,
        *,
        context: RequestContext,
        sounding: SourceReader | None = None,
        late: LateMark | None = None,
    ) -> None:
        self._encoder = encoder
        self._sounding = sounding
        self._field = field
        self._threads = threads
        self._context = context
        self._late = late
        self._label = VisibleLabel() if context.labelled else None
        self._call: asyncio.Future[Any] | None = None

    async def add(self, chunk: TimedFrames) -> None:
        """Encode the frames of ``chunk``."""

        def encode() -> None:
            if self._late is not None and chunk.changed:
                self._late.begin()
            frames = chunk.frames if self._label is None else self._label.draw(chunk.frames, chunk.times)
            self._encoder.add(frames, chunk.times)

        await self._run(encode)
        self._context.observe(ChunkStep("encoded", chunk.index))

    async def close(self) -> tuple[Media, int]:
        """Finish the file; return it and the number of its frames."""
        data = await self._run(self._encoder.close)
        if self._sounding is not None:
            assert isinstance(self._encoder, Mp4Encoder)
            assert isinstance(data, Spool)
            data = await self._add_sound(self._sounding, data, self._encoder.end)
        return data, self._encoder.frames

    async def _add_sound(self, source: SourceReader, draft: Spool, end: Fraction) -> Spool:
        try:
            with Stopwatch() as watch:
                result = await source.add_sound(draft, end)
        finally:
            draft.close()
        self._context.meter.add_phase("encode", watch.seconds)
        return result

    async def discard(self) -> None:
        """Free what the encoder holds, once the call that may still run in its thread has ended.

        A call that would finish the file is stopped, because it holds a thread that others need.
        """
        self._encoder.stop()
        try:
            if self._call is not None:
                await wait_for_end(self._call)
        finally:
            self._encoder.discard()

    async def _run(self, function: Callable[[], T]) -> T:
        with Stopwatch() as watch:
            call = self._threads.start(function)
            self._call = call
            with blame(self._field):
                result = await asyncio.shield(call)
        self._context.meter.add_phase("encode", watch.seconds)
        return result


class VideoWriters:
    """Opens a writer for each video, with the encoder settings of the ingress."""

    def __init__(self, settings: RunnerSettings, threads: MediaThreads) -> None:
        self._settings = settings
        self._threads = threads

    @asynccontextmanager
    async def open(
        self,
        field: str,
        context: RequestContext,
        *,
        fps: Fraction,
        count: int,
        source: SourceReader | None = None,
        marked_once_changed: bool = False,
    ) -> AsyncIterator[VideoWriter]:
        """Open a writer for ``count`` frames; leaving the block frees it.

        With a ``source``, its duration is kept and, in an MP4 file, its sound is copied if the
        source was opened with it. The mark is in all frames or, if ``marked_once_changed``, in
        those from the first chunk on that a model has changed. So a film that no model changes
        stays without one, which is known only at its end.
        """
        mark: FrameMark | None = None if context.new_mark is None else context.new_mark()
        late = LateMark(mark) if mark is not None and marked_once_changed else None
        mark = late or mark
        seconds = None if source is None else source.duration
        sounding = source if source is not None and source.has_sound and context.media_type == "video/mp4" else None
        if context.media_type == "video/mp4":
            encoder: Encoder = Mp4Encoder(
                fps,
                preset=self._settings.h264_preset,
                crf=self._settings.h264_crf,
                seconds=seconds,
                mark=mark,
                draft=sounding is not None,
            )
        elif context.media_type == "image/gif":
            encoder = GifEncoder(fps, count=count, seconds=seconds)
        else:
            encoder = WebpEncoder(fps, method=self._settings.webp_method, count=count, seconds=seconds)
        if mark is not None and not isinstance(encoder, Mp4Encoder):  # which marks the luma itself
            encoder = MarkedEncoder(encoder, mark)
        writer = VideoWriter(encoder, field, self._threads, context=context, sounding=sounding, late=late)
        span = tracing.begin("encode", {"ryla.media_type": context.media_type})
        try:
            yield writer
        except BaseException as error:
            span.fail(type(error).__name__)
            raise
        finally:
            try:
                await writer.discard()
            finally:
                span.set({"ryla.frames": encoder.frames, "ryla.busy_s": context.meter.phases.get("encode", 0.0)})
                span.end()
