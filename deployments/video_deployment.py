"""The base of the video deployments: it streams the events of an engine that runs in a thread."""

import asyncio
import concurrent.futures
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from deployments import hardware
from deployments.engine import VideoEngine
from deployments.engine_threads import CancelFlag, EngineThreads
from deployments.errors import Cancelled
from deployments.flow_control import Credits, ProducerEnd
from deployments.replica.engine_report import EngineReport, VideoReport
from deployments.replica.profiling import trace_video
from deployments.settings import VideoSettings
from deployments.telemetry import logs, tracing
from deployments.telemetry.origin import NOWHERE, Origin, work_for
from deployments.wire import FrameChunk, Progress, VideoEvent, VideoRequest

OPTIONS: dict[str, Any] = {
    # One GPU runs one request; the others wait where the queue limit counts them.
    "max_ongoing_requests": 1,
    "max_queued_requests": 32,
    "graceful_shutdown_timeout_s": 1800,  # a video takes minutes
    "health_check_period_s": 10,
    "health_check_timeout_s": 30,
}
"""Serve options of a video deployment. A Serve config file may override each of them in place."""


class VideoDeployment:
    """A Ray Serve deployment around a video engine, whose model has the API name ``model``."""

    def __init__(self, engine: VideoEngine, settings: VideoSettings, model: str) -> None:
        logs.name_origins()
        self._engine = engine
        self._model = model
        self._report = EngineReport(model, engine.usage())
        # On a CPU all models share the cores; on a GPU the threads only launch kernels.
        self._threads = EngineThreads(settings.concurrency, settings.stall_timeout_s, steps_back=engine.hardware == "CPU")
        hardware.publish(engine.hardware)

    async def generate(
        self, request: VideoRequest, stream: ProducerEnd, origin: Origin = NOWHERE
    ) -> AsyncGenerator[VideoEvent, None]:
        """Yield the progress and the chunks of one video and, last, Finished.

        The engine stops within one step when this generator is cancelled or closed, when the
        consumer closes ``stream``, and when the consumer dies; in the last two cases the generator
        raises Cancelled. No work begins for a consumer that is already gone.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[VideoEvent | None] = asyncio.Queue()
        with self._reported(origin) as report:
            async with (
                stream.connect() as credit,
                self._threads.start(
                    lambda cancel: self._engine.generate(
                        request, _ThreadSink(cancel, credit, events=events, loop=loop, report=report)
                    )
                ) as (work, cancel),
            ):
                closed = asyncio.ensure_future(credit.closed())

                def stop(_: object) -> None:
                    cancel.set()
                    events.put_nowait(None)

                closed.add_done_callback(stop)
                work.add_done_callback(lambda _: events.put_nowait(None))
                try:
                    yield Progress("start", 1, 1)
                    while (event := await events.get()) is not None:
                        yield event
                    if not work.done():
                        raise Cancelled("the consumer has closed the stream or is gone")
                    yield work.result()
                finally:
                    closed.remove_done_callback(stop)
                    closed.cancel()

    @contextmanager
    def _reported(self, origin: Origin) -> Iterator[VideoReport]:
        """Report on the video that the block makes for ``origin``: its metrics and its spans."""
        span = tracing.begin(f"{self._model} generate", kind="server", parent=origin.trace)
        work_for(replace(origin, trace=span.trace))  # Serve runs every call in a context of its own
        report = self._report.begin()
        try:
            yield report
        except BaseException as error:
            report.fail(type(error).__name__)
            span.fail(type(error).__name__)
            raise
        finally:
            report.end()
            span.end()
            self._report.used(self._engine.usage())

    async def profile(self, request: VideoRequest) -> bytes:
        """Make one video that nobody gets, and return torch's trace of it; see ``trace``."""
        return await self._threads.run(lambda cancel: trace_video(self._engine, request, cancel))

    async def warm(self) -> None:
        """Do nothing: the call alone makes Serve start a replica."""

    def check_health(self) -> None:
        """Raise if the engine is stalled or broken; Serve then replaces the replica."""
        self._threads.check_health()


class _ThreadSink:
    """An engine's sink: passes events from its thread to the event loop, and credits back."""

    def __init__(
        self,
        cancel: CancelFlag,
        credit: Credits,
        *,
        events: "asyncio.Queue[VideoEvent | None]",
        loop: asyncio.AbstractEventLoop,
        report: VideoReport,
    ) -> None:
        self._cancel = cancel
        self._credit = credit
        self._events = events
        self._loop = loop
        self._report = report

    def progress(self, progress: Progress) -> None:
        self._report.observe(progress)
        self._put(progress)

    def chunk(self, chunk: FrameChunk) -> None:
        self._put(chunk)

    def ready(self) -> None:
        credit = asyncio.run_coroutine_threadsafe(self._credit.acquire(), self._loop)
        while True:
            try:
                self._cancel.check()
                return credit.result(timeout=0.1)
            except concurrent.futures.TimeoutError:
                continue
            except Cancelled:
                credit.cancel()
                raise

    def _put(self, event: VideoEvent) -> None:
        self._cancel.check()
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)
