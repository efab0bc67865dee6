"""Turns an engine, which runs in a thread, into the stream of events that a video deployment yields."""

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator

from deployments.errors import Cancelled
from deployments.turns import Stop, Turns
from deployments.video.engine import VideoEngine
from deployments.window import Stream
from deployments.wire import Finished, FrameChunk, Progress, VideoEvent, VideoRequest


class _ThreadSink:
    """The engine's sink: hands events from the worker thread to the event loop, and credits the other way."""

    def __init__(self, stop: Stop, stream: Stream, events: "asyncio.Queue[VideoEvent | None]", loop: asyncio.AbstractEventLoop):
        self._stop = stop
        self._stream = stream
        self._events = events
        self._loop = loop

    def progress(self, progress: Progress) -> None:
        self._put(progress)

    def chunk(self, chunk: FrameChunk) -> None:
        self._put(chunk)

    def ready(self) -> None:
        credit = asyncio.run_coroutine_threadsafe(self._stream.take(), self._loop)
        while True:
            try:
                self._stop.check()
                return credit.result(timeout=0.1)
            except concurrent.futures.TimeoutError:
                continue
            except Cancelled:
                credit.cancel()
                raise

    def _put(self, event: VideoEvent) -> None:
        self._stop.check()
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)


async def stream_video(engine: VideoEngine, request: VideoRequest, stream: Stream, turns: Turns) -> AsyncIterator[VideoEvent]:
    """Yields progress, chunks and, last, Finished.

    The engine stops within one step when this generator is cancelled or closed, when the consumer closes ``stream``, and when the
    consumer dies; in the latter two cases the generator raises Cancelled.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[VideoEvent | None] = asyncio.Queue()

    def generate(stop: Stop) -> Finished:
        return engine.generate(request, _ThreadSink(stop, stream, events, loop))

    async with turns.start(generate) as (work, stop):
        watch = asyncio.ensure_future(stream.ended())

        def on_end(_: object) -> None:
            stop.set()
            events.put_nowait(None)

        watch.add_done_callback(on_end)
        work.add_done_callback(lambda _: events.put_nowait(None))
        try:
            yield Progress("start", 1, 1)
            while (event := await events.get()) is not None:
                yield event
            if not work.done():
                raise Cancelled("the consumer of the stream is gone")
            yield work.result()
        finally:
            watch.remove_done_callback(on_end)
            watch.cancel()
