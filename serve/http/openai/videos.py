"""Handles /v1/videos and /v1/models: jobs in the dialect of OpenAI's videos API."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.http.bodies import read_body
from serve.http.callers.admission import Admission
from serve.http.callers.caller import caller_of
from serve.http.callers.quotas import Quotas
from serve.http.endpoints import Endpoint
from serve.http.jobs.handlers import MAX_PAGE, JobHandlers, page_size, unknown_job
from serve.http.jobs.record import field_headers, retry_after_s
from serve.http.jobs.result_download import download
from serve.http.jobs.store_problems import store_problems
from serve.http.jobs.submission import Submission
from serve.http.negotiation import parse_request_timeout, read_preferences
from serve.http.openai.fields import VideoModels, video_of
from serve.http.protocol.connection import run_while_connected
from serve.http.reports.request_report import RequestReport, reported
from serve.jobs.desk import Desk
from serve.jobs.files.file_store import FileStore
from serve.jobs.store.job_store import JobStore
from serve.jobs.store.record import Job
from serve.problems import Problem, invalid_parameter

MAX_LISTED = 2_000
"""Number of jobs among which one page of a list finds its videos."""
SUBMIT_S = 600.0
"""Seconds within which a request must have arrived, and within which it must be accepted."""
CANCEL_S = 20.0
"""Seconds for which a request to delete a video waits until the work on it has ended."""


Submit = Callable[[Submission], Coroutine[Any, Any, Job]]
"""Makes a durable job of a request.

Raises a problem that has the endpoint's names for the fields, and what ``JobStore.create`` raises.
"""


class OpenAIVideos:
    """The handlers, one method for each route.

    Only jobs that came through this interface are its videos: the others lack the details that it
    shows. Each has ``timeout_s``, or as long as its caller allows if that is less.
    """

    def __init__(
        self,
        *,
        endpoints: Sequence[Endpoint],
        submit: Submit,
        desk: Desk,
        store: JobStore,
        files: FileStore,
        jobs: JobHandlers,
        quotas: Quotas,
        admission: Admission,
        timeout_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._models = VideoModels(endpoints)
        self._submit = submit
        self._desk = desk
        self._store = store
        self._files = files
        self._jobs = jobs
        self._quotas = quotas
        self._admission = admission
        self._timeout_s = timeout_s
        self._created = int(now())

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names of the models, the default first."""
        return self._models.names

    async def create(self, request: Request) -> Response:
        """Make a job of a request, and return its video."""
        with reported() as report:
            return report.answered(await self._create(request, report))

    async def _create(self, request: Request, report: RequestReport) -> Response:
        caller, start = caller_of(request), time.time()
        self._admission.check(caller)
        with store_problems():
            await self._quotas.count(caller, request)
            timeout_s = parse_request_timeout(request.headers.get("request-timeout"), self._timeout_s)
            preferences = replace(read_preferences(request.headers, max_wait_s=0), respond_async=True)
            async with asyncio.timeout(min(SUBMIT_S, timeout_s)):
                fields = await read_body(request, form=True)
                order = await asyncio.to_thread(self._models.order, fields, strict=preferences.strict)
            report.endpoint = order.endpoint
            submission = Submission(
                endpoint=order.endpoint,
                fields=order.fields,
                caller=caller,
                media_type="video/mp4",
                request_id=request.state.request_id,
                began_at=start,
                timeout_s=timeout_s,
                preferences=preferences,
                details=order.details,
                sent_as=order.sent_as,
                sent=fields,
            )
            try:
                with self._admission.admit(caller):
                    job = await run_while_connected(request, self._submit(submission), SUBMIT_S)
            except Problem as problem:
                raise problem.with_field_names(order.sent_as) from problem
        return _video_response(job, field_headers(job))

    async def retrieve(self, request: Request) -> Response:
        """Return a video, with how far it is."""
        with store_problems():
            return _video_response(await self._find(request), {})

    async def content(self, request: Request) -> Response:
        """Return the file of a video, or the latest frame as its thumbnail."""
        variant = request.query_params.get("variant", "video")
        if variant not in ("video", "thumbnail"):
            raise invalid_parameter("variant", f"must be `video` or `thumbnail`; `{variant[:50]}` is not made here")
        with store_problems():
            job = await self._find(request)
            if variant == "thumbnail":
                return await self._jobs.preview_of(job)
            if job.result is None or job.state != "succeeded":
                raise _no_file(job)
            return await download(request, self._files, job.result)

    async def delete(self, request: Request) -> Response:
        """Delete a video; one that is being made is cancelled first."""
        caller, video_id = caller_of(request), request.path_params["id"]
        with store_problems():
            try:
                found = await self._find(request)
            except Problem as problem:
                if problem.status == 410:  # OpenAI's packages repeat a request whose answer was lost
                    return _deleted(video_id)
                raise
            job: Job | None = found  # None once somebody else has deleted it
            if job is not None and not job.ended:
                job = await self._desk.cancel(job.id, caller)
            if job is not None and not job.ended:
                job = await self._jobs.wait(request, job, CANCEL_S)
            if job is not None and not job.ended:
                detail = "the video is being cancelled, which takes longer than usual: delete it again"
                raise Problem(409, "conflict", detail, headers={"Retry-After": str(retry_after_s(job))})
            await self._desk.delete(found.id, caller)
        return _deleted(found.id)

    async def list(self, request: Request) -> Response:
        """Return the caller's videos, newest first or, with `order=asc`, oldest first."""
        query = request.query_params
        limit, after, order = page_size(query.get("limit")), query.get("after"), query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid_parameter("order", "must be `asc` or `desc`")
        caller = caller_of(request)
        with store_problems():
            if after is not None and await self._store.was_deleted(after, caller):
                after = None  # who deletes what they list goes on with what is left
            cursor = None if after is None else await self._store.cursor_after(after, caller)
            if after is not None and cursor is None:
                raise invalid_parameter("after", "is the id of no job of yours; list from the beginning")
            if order == "asc":
                page = await self._oldest_first(caller, after=after, limit=limit)
                more = len(page) > limit
            else:
                page, more = await self._newest_first(caller, cursor=cursor, limit=limit)
        found = [video_of(job) for job in page[:limit]]
        return JSONResponse(
            {
                "object": "list",
                "data": found,
                "first_id": found[0]["id"] if found else None,
                "last_id": found[-1]["id"] if found else None,
                "has_more": more,
            },
            headers={"Cache-Control": "no-store"},
        )

    async def models(self, _: Request) -> Response:
        """Return the models."""
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self._models.names]})

    async def model(self, request: Request) -> Response:
        """Return one model."""
        name = request.path_params["id"]
        if name not in self._models.names:
            raise Problem(404, "not-found", f"unknown model; available: {', '.join(self._models.names)}")
        return JSONResponse(self._model(name))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "ryla"}

    async def _find(self, request: Request) -> Job:
        job = await self._jobs.find(request)
        if job.details is None:
            raise unknown_job()
        return job

    async def _newest_first(self, caller: str, *, cursor: str | None, limit: int) -> tuple[Sequence[Job], bool]:
        """Return up to ``limit`` videos from ``cursor`` on, and whether there may be more.

        At most ``MAX_LISTED`` jobs are looked at. If that was not enough to find all, the next page
        begins where this one ends.
        """
        videos: list[Job] = []
        for _ in range(MAX_LISTED // MAX_PAGE):
            page = await self._store.list(caller, state=None, limit=MAX_PAGE, cursor=cursor)
            videos += _videos(page.jobs)
            cursor = page.cursor
            if cursor is None or len(videos) > limit:
                return videos[:limit], len(videos) > limit
        if not videos:
            detail = (
                f"none of the {MAX_LISTED} jobs that follow was made here: send the id of an older one, which GET /jobs lists"
            )
            raise invalid_parameter("after", detail)
        return videos[:limit], True

    async def _oldest_first(self, caller: str, *, after: str | None, limit: int) -> Sequence[Job]:
        """Return up to ``limit`` videos that are newer than the job ``after``, and one more."""
        jobs: list[Job] = []
        cursor: str | None = None
        for _ in range(MAX_LISTED // MAX_PAGE):
            page = await self._store.list(caller, state=None, limit=MAX_PAGE, cursor=cursor)
            for job in page.jobs:
                if job.id == after:
                    return _oldest_videos(jobs, limit)
                jobs.append(job)
            cursor = page.cursor
            if cursor is None:
                return _oldest_videos(jobs, limit)
        raise invalid_parameter("order", f"`asc` would pass over more than {MAX_LISTED} jobs of yours: list the newest first")


def _deleted(video_id: str) -> Response:
    return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})


def _oldest_videos(newest_first: Sequence[Job], limit: int) -> Sequence[Job]:
    return _videos(reversed(newest_first))[: limit + 1]


def _videos(jobs: Iterable[Job]) -> Sequence[Job]:
    """Return those of the jobs that are videos, and can be retrieved."""
    now = time.time()
    return [job for job in jobs if job.details is not None and not job.has_expired(now)]


def _no_file(job: Job) -> Problem:
    """Return the 409 problem for the file of a video that has none.

    OpenAI's packages repeat a request by themselves after a 409, unless it says that they need not:
    here they would only delay the error.
    """
    headers = {"X-Should-Retry": "false"}
    video = video_of(job)
    if job.ended:
        why = f": {error['message']}" if (error := video["error"]) else ""
        return Problem(409, "conflict", f"the video has failed, so it has no file{why}", headers=headers)
    detail = (
        f"the video is {video['status']}, {video['progress']} % done: "
        "ask for the file once the `status` of the video is `completed`"
    )
    return Problem(409, "conflict", detail, headers={**headers, "Retry-After": str(retry_after_s(job))})


def _video_response(job: Job, headers: dict[str, str]) -> Response:
    """Return a response with a video, which says when to ask for it again."""
    if not job.ended:
        wait_s = retry_after_s(job)
        headers = {**headers, "Retry-After": str(wait_s), "openai-poll-after-ms": str(min(wait_s, 5) * 1000)}
    return JSONResponse(video_of(job), headers={**headers, "Cache-Control": "no-store"})
