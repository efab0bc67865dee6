"""Runs one attempt of a job, from its request to its result."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from deployments.telemetry import tracing
from deployments.wire import Image
from serve.config import AppConfig
from serve.jobs.files.file_store import FileStore, fetch_to_disk
from serve.jobs.forecasts.pace import Pace
from serve.jobs.forecasts.patience import patiently
from serve.jobs.held_job import HeldJob
from serve.jobs.request import JobRequest, RequestHead, head_bytes, read_head, read_request
from serve.jobs.results.headers import Answer, marks_as_said, result_headers
from serve.jobs.results.marks import ResultMarks, kind_of
from serve.jobs.results.watermarking import JobWatermark, Watermarking
from serve.jobs.store.keys import preview_key, request_key, result_key
from serve.jobs.store.record import Job, StoredResult
from serve.jobs.tracker import Tracker
from serve.media.images import encode_image
from serve.media.spool import Media, media_pieces, media_size, open_media, read_media
from serve.models import FACE_SWAPPER, MODELS
from serve.pipelines.attempts import ATTEMPTS
from serve.pipelines.context import RequestContext
from serve.pipelines.meter import Meter
from serve.pipelines.pipelines import Pipelines
from serve.pipelines.readiness import Readiness, StateUnknown
from serve.pipelines.requests import GenerateVideo
from serve.pipelines.result import Result
from serve.provenance.marking import Marking
from serve.provenance.visible_label import VisibleLabel

logger = logging.getLogger("ray.serve")

INLINE_BYTES = 16 * 2**20
"""The size up to which a result travels through a Serve handle, and up to which a file of the file
store is read into memory."""
HEAD_BYTES = 64 * 2**10
"""How much of a stored request is read first, which nearly always is more than its head."""
PREVIEW_PERIOD_S = 1.0
"""The shortest time between two previews of a job."""
START_POLL_S = 2.0
"""Seconds between two looks at what a model that starts is doing."""


@dataclass(frozen=True)
class Finished:
    """The result of a job: where it is stored, the bytes if they are not, and its frames."""

    result: StoredResult
    data: bytes | None
    frames: int


@dataclass(frozen=True)
class Marks:
    """What marks the result of a job, and its frames; None for frames without a watermark."""

    of_result: ResultMarks
    new_mark: JobWatermark | None


class Execution:
    """Runs jobs with the pipelines of this replica."""

    def __init__(
        self, config: AppConfig, pipelines: Pipelines, readiness: Readiness, files: FileStore, *, marking: Marking
    ) -> None:
        self._hardware = {model: config.deployment_of(model).hardware for model in MODELS}
        self._pipelines = pipelines
        self._readiness = readiness
        self._files = files
        self._marking = marking
        self._watermarking = Watermarking(config.provenance.watermark)
        self._labelled = config.provenance.aigc.visible
        self._pace = Pace()
        self._max_attempts = max(ATTEMPTS, config.jobs.max_attempts)

    async def read_head(self, job: Job, sent: bytes | None) -> RequestHead:
        """Return what is known about the request of ``job`` without its files."""
        if sent is not None:
            return read_head(sent)
        key = request_key(job.id)
        size = await self._files.size(key)
        if size is None:
            raise _missing(job)
        start = await self._piece(key, 0, min(size, HEAD_BYTES))
        start += await self._piece(key, len(start), head_bytes(start, size))
        return read_head(start)

    async def read(self, job: Job, sent: bytes | None) -> JobRequest:
        """Return the request of ``job``, which came with the call or is stored."""
        stored: Media | None = sent
        if stored is None:
            stored = await self._fetch(request_key(job.id))
        if stored is None:
            raise _missing(job)
        return await asyncio.to_thread(read_request, stored)

    async def prepare_marks(self, job: Job, request: JobRequest) -> Marks:
        """Return the marks of a job, which take reading all of its files.

        Raises RequestRefused for a source whose marks would be lost.
        """
        new_mark = await self._new_mark(job, request)
        of_result = ResultMarks(self._marking, request.request)
        await of_result.look()
        return Marks(of_result, new_mark)

    async def run(self, held: HeldJob, request: JobRequest, marks: Marks) -> Finished:
        """Run the pipeline, again if a model's replica is lost, and store the result."""
        job, meter = held.job, held.meter
        latest: asyncio.Queue[Image] = asyncio.Queue(1)

        def keep_latest(frame: Image) -> None:
            if latest.full():
                latest.get_nowait()  # a frame holds the memory of its whole chunk
            latest.put_nowait(frame)

        tracker = Tracker(
            request.request,
            request.model,
            self._pace,
            changed=held.show,
            on_frame=keep_latest if job.durable else lambda _: None,
        )
        held.show(tracker.progress)
        context = RequestContext(
            seed=job.seed or 0,
            media_type=job.media_type,
            meter=meter,
            observe=tracker.observe,
            caller=job.caller,
            new_mark=marks.new_mark,
            labelled=self._labelled,
        )
        starting = self._watch_start(request, meter, tracker)
        previews = self._preview(job, marks, latest=latest, tracker=tracker, models=tuple(meter.hardware))
        async with self._beside(starting, previews):
            attempts = self._max_attempts if job.durable else ATTEMPTS
            result = await self._pipelines.run(request.model, request.request, context, attempts=attempts)
        tracker.finished()
        tracker.writing()
        return await self._write(held, request, marks=marks, result=result)

    async def _write(self, held: HeldJob, request: JobRequest, marks: Marks, result: Result) -> Finished:
        """Mark a result, and store it with its headers."""
        job, meter = held.job, held.meter
        if marks.new_mark is not None and kind_of(request.request, result) != "unchanged":
            result = replace(result, marks=(marks.new_mark.claim(job.request_id),))
        result = await marks.of_result.put_on(result, models=tuple(meter.hardware), request_id=job.request_id)
        answer = Answer(
            result=result,
            endpoint=request.endpoint,
            meter=meter,
            ignored_fields=request.ignored,
            request_id=job.request_id,
        )
        with tracing.span("write result"):
            stored, data = await self._store(job, result.data, headers=result_headers(answer), media_type=result.media_type)
        return Finished(stored, data, result.frames)

    async def check(self, job: Job, sent: bytes | None) -> None:
        """Raise an error for what is wrong with a request's files, as far as their headers show it.

        The request is read for that, and not kept.
        """
        request = await self.read(job, sent)
        try:
            await self._pipelines.check(request.request, job.caller)
        finally:
            request.close()

    def meter(self, head: RequestHead) -> Meter:
        """Return an empty meter for the models that a request uses, the first of them first."""
        used = [model for model in MODELS if model.name == head.model]
        if issubclass(head.kind, GenerateVideo) and head.has_face:
            used.append(FACE_SWAPPER)
        return Meter({model.name: self._hardware[model] for model in used})

    async def _store(
        self, job: Job, data: Media, headers: dict[str, str], media_type: str
    ) -> tuple[StoredResult, bytes | None]:
        """Store a result; return it without storing if the caller waits and it is small."""
        size = media_size(data)
        inline = not job.durable and size <= INLINE_BYTES
        key = None if inline else result_key(job.id, job.attempt)
        etag = "" if inline else await asyncio.to_thread(_digest, data)
        if key is not None:
            await patiently(lambda: self._put(key, data), job.id)
        result = StoredResult(key=key, media_type=media_type, size=size, etag=etag, headers=headers)
        return result, read_media(data) if inline else None

    async def _put(self, key: str, data: Media) -> None:
        with open_media(data) as file:
            await self._files.put(key, file)

    async def _piece(self, key: str, start: int, end: int) -> bytes:
        async with aclosing(self._files.read(key, start, end)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def _fetch(self, key: str) -> Media | None:
        size = await self._files.size(key)
        if size is None:
            return None
        if size <= INLINE_BYTES:
            return await self._files.get(key)
        return await fetch_to_disk(self._files, key, size)

    @staticmethod
    @asynccontextmanager
    async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run ``work`` beside the block, and end it with the block."""
        tasks = [asyncio.ensure_future(item) for item in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    logger.warning("progress of a job could not be shown: %r", ended)

    async def _watch_start(self, request: JobRequest, meter: Meter, tracker: Tracker) -> None:
        """Say what the model is doing while the job waits for it to start."""
        while request.model not in meter.begun:
            await asyncio.sleep(START_POLL_S)
            try:
                state = await self._readiness.of(request.model)
            except StateUnknown:
                continue
            if request.model not in meter.begun and state.state != "ready":
                tracker.starting(f"{request.model} is {state.state}" + (f": {state.reason}" if state.reason else ""))

    async def _new_mark(self, job: Job, request: JobRequest) -> JobWatermark | None:
        """Return what makes the watermark of a job's files, if they get one; log its payload."""
        if not self._watermarking.enabled:
            return None
        payload = await asyncio.to_thread(self._watermarking.payload_of, request, job.seed)
        logger.info("request %s: watermark=%s", job.request_id, payload)
        return self._watermarking.of(payload)

    async def _preview(
        self, job: Job, marks: Marks, latest: "asyncio.Queue[Image]", tracker: Tracker, *, models: tuple[str, ...]
    ) -> None:
        """Store the latest decoded frame as a JPEG with metadata, at most once a second."""
        new_mark = None if marks.new_mark is None else marks.new_mark.apart()

        def encode(frame: Image) -> bytes:
            frames = frame[None]
            if self._labelled:
                frames = VisibleLabel().draw(frames, (Fraction(0),))
            marked = frames[0] if new_mark is None else new_mark().mark(frames)[0]
            return encode_image(marked, "image/jpeg")

        written_at = float("-inf")
        while True:
            await asyncio.sleep(max(0.0, written_at + PREVIEW_PERIOD_S - time.monotonic()))
            frame = await latest.get()
            data = await asyncio.to_thread(encode, frame)
            described, said = await marks.of_result.describe(data, "image/jpeg", models=models, request_id=job.request_id)
            if new_mark is not None:
                said = (*said, new_mark.said)
            await self._files.put(preview_key(job.id, job.attempt), read_media(described))
            written_at = time.monotonic()
            tracker.preview_ready(marks_as_said(said))


def _missing(job: Job) -> FileNotFoundError:
    return FileNotFoundError(f"the request of job {job.id} is not in the file store")


def _digest(media: Media) -> str:
    digest = hashlib.sha256()
    for piece in media_pieces(media):
        digest.update(piece)
    return digest.hexdigest()
