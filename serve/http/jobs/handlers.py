"""Handles the routes of jobs: their records, events, results and previews, and their end."""

import re
import time
from dataclasses import replace
from typing import Any, NoReturn, get_args
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.http.callers.caller import caller_of
from serve.http.jobs.event_stream import HEADERS, MEDIA_TYPE, EventStream
from serve.http.jobs.listeners import Listeners
from serve.http.jobs.record import Links, SignLink, no_signature, record_of, retry_after_s
from serve.http.jobs.responses import record_response, see_result
from serve.http.jobs.result_download import download
from serve.http.jobs.store_problems import store_problems
from serve.http.negotiation import best_media_type
from serve.http.protocol.connection import run_while_connected
from serve.http.reports.http_span import link_to_job
from serve.jobs.desk import Desk, News
from serve.jobs.files.file_store import FileStore
from serve.jobs.follower import known_event
from serve.jobs.results.headers import PROVENANCE
from serve.jobs.store.job_store import JobStore
from serve.jobs.store.keys import preview_key
from serve.jobs.store.record import Job, State
from serve.problems import Problem, invalid_header, invalid_parameter

RECORD_TYPES = ("application/json", MEDIA_TYPE)
"""The media types of a job, the default first."""
MAX_PAGE = 100
"""Number of jobs in one page of a list."""
DEFAULT_PAGE = 20
STATES: tuple[State, ...] = get_args(State)
_ID = re.compile(r"[0-9a-f]{32}")
_GRACE_S = 30.0
"""Seconds beyond the wait within which the store must have answered."""


class JobHandlers:
    """The handlers, one method for each route.

    A job that its caller does not have is a 404 problem, and one that was deleted or has expired a
    410. ``max_wait_s`` is the longest wait for a result. Without ``redirects``, a wait that is too
    short ends in a 409. With them it ends in a 303 to itself, and if the job fails, in the problem
    that a POST which waits would have got.
    """

    def __init__(
        self,
        *,
        desk: Desk,
        store: JobStore,
        files: FileStore,
        listeners: Listeners,
        max_wait_s: float,
        redirects: bool = False,
        sign: SignLink = no_signature,
    ) -> None:
        self._desk = desk
        self._store = store
        self._files = files
        self._listeners = listeners
        self._max_wait_s = max_wait_s
        self._redirects = redirects
        self._links = Links(sign)

    def links(self, request: Request) -> Links:
        """Return what makes links below the prefix under which the request came."""
        return replace(self._links, root=request.scope.get("root_path", "").rstrip("/"))

    async def get(self, request: Request) -> Response:
        """Return a job's record, or its events if the Accept header prefers them."""
        if best_media_type(request.headers.get("accept"), RECORD_TYPES) == MEDIA_TYPE:
            return await self.events(request)
        with store_problems():
            job = await self.find(request)
            response = record_response(job, position=await self.position(job), links=self.links(request))
        response.headers["Vary"] = "Accept"
        return response

    async def events(self, request: Request) -> Response:
        """Return a job's events as they happen, from the one after `Last-Event-ID`.

        An id that the job has not had counts as none.
        """
        last_id = _last_event_id(request)
        with store_problems():
            job = await self.find(request)
            after = await known_event(self._store, job.id, last_id)
            if job.ended and not await self._store.events(job.id, after):
                # By this status, a browser learns that it need not connect again.
                return Response(status_code=204, headers={"Cache-Control": "no-store"})
        if request.method == "HEAD":
            return Response(headers=HEADERS, media_type=MEDIA_TYPE)
        links = self.links(request)

        def data_of(news: News) -> dict[str, Any]:
            return record_of(news.job, position=news.position, links=links)

        release = self._listeners.admit(caller_of(request))
        return EventStream(self._desk.follow(job.id, after), data_of, release=release)

    async def result(self, request: Request) -> Response:
        """Return a job's result; with `?wait=N`, once it is there, after at most N seconds."""
        wait_s = self._wait_s(request)
        with store_problems():
            job = await self.find(request)
            if wait_s and not job.ended:
                job = await self.wait(request, job, wait_s) or await self._missing(job.id, caller_of(request))
            if job.result is not None and job.state == "succeeded":
                return await download(request, self._files, job.result)
        if wait_s and self._redirects:
            if not job.ended:
                return see_result(job, links=self.links(request), wait_s=wait_s)
            raise_problem(job)
        raise _no_result(job)

    async def preview(self, request: Request) -> Response:
        """Return the latest decoded frame of a job's video."""
        with store_problems():
            return await self.preview_of(await self.find(request))

    async def preview_of(self, job: Job) -> Response:
        """Return the latest decoded frame of a video; raise a 404 problem if there is none."""
        shown = job.progress.preview and not job.ended  # a file that was left behind is not shown
        data = await self._files.get(preview_key(job.id, job.attempt)) if shown else None
        if data is None:
            detail = "there is no preview (yet): it comes once the first frame of a video is decoded"
            raise Problem(404, "not-found", detail, headers={} if job.ended else {"Retry-After": str(retry_after_s(job))})
        headers = {"Cache-Control": "no-store"}
        if job.progress.preview_marks:
            headers[PROVENANCE] = job.progress.preview_marks
        return Response(data, media_type="image/jpeg", headers=headers)

    async def cancel(self, request: Request) -> Response:
        """Cancel a job that has not ended (202); return the record of one that has (200).

        Nothing is deleted, however often it is repeated.
        """
        with store_problems():
            job = await self.find(request)
            status = 200 if job.ended else 202
            if not job.ended:
                job = await self._desk.cancel(job.id, job.caller) or await self._missing(job.id, job.caller)
                if job.state in ("succeeded", "failed"):  # it ended meanwhile
                    status = 200
            return record_response(job, position=await self.position(job), links=self.links(request), status=status)

    async def delete(self, request: Request) -> Response:
        """Cancel a job that has not ended (202), or delete one that has, with its files (204)."""
        caller, job_id = caller_of(request), request.path_params["id"]
        with store_problems():
            job = await self._find_or_none(request)
            if job is not None and not job.ended:
                job = await self._desk.cancel(job_id, caller)
                if job is not None and job.state not in ("succeeded", "failed"):
                    return record_response(job, position=await self.position(job), links=self.links(request), status=202)
            if job is not None:
                await self._desk.delete(job_id, caller)
            elif _ID.fullmatch(job_id) is None or not await self._store.was_deleted(job_id, caller):
                raise unknown_job()
        return Response(status_code=204)

    async def list(self, request: Request) -> Response:
        """Return the caller's jobs, newest first, a page at a time."""
        query = request.query_params
        state, cursor, limit = _state(query.get("state")), query.get("cursor"), page_size(query.get("limit"))
        with store_problems():
            try:
                page = await self._store.list(caller_of(request), state=state, limit=limit, cursor=cursor)
            except ValueError:
                raise invalid_parameter("cursor", "is none that this service has given out; leave it out") from None
        links = self.links(request)
        now = time.time()
        kept = [job for job in page.jobs if not job.has_expired(now)]
        body: dict[str, Any] = {"jobs": [record_of(job, position=None, links=links) for job in kept], "next": None}
        response_headers = {"Cache-Control": "no-store"}
        if page.cursor is not None:
            parameters = {"limit": str(limit), "cursor": page.cursor} | ({} if state is None else {"state": state})
            body["next"] = f"{links.root}/jobs?{urlencode(parameters)}"
            response_headers["Link"] = f'<{body["next"]}>; rel="next"'
        return JSONResponse(body, headers=response_headers)

    async def wait(self, request: Request, job: Job, seconds: float) -> Job | None:
        """Return a job once it has ended, or as it is after some seconds; None if it is gone.

        Who waits takes the place of a listener. The wait ends when the caller leaves.
        """
        release = self._listeners.admit(caller_of(request))
        try:
            waiting = self._desk.wait(job.id, seconds)
            return await run_while_connected(request, waiting, seconds + _GRACE_S)
        finally:
            release()

    async def find(self, request: Request) -> Job:
        """Return the job in the path of a request; raise a 404 or 410 problem if there is none."""
        job = await self._find_or_none(request)
        if job is not None and job.has_expired(time.time()):
            raise _gone()  # a sweeper deletes it soon
        return job or await self._missing(request.path_params["id"], caller_of(request))

    async def _find_or_none(self, request: Request) -> Job | None:
        job_id = request.path_params["id"]
        job = await self._desk.get(job_id, caller_of(request)) if _ID.fullmatch(job_id) else None
        if job is not None:
            link_to_job(request.scope, job.trace)
        return job

    async def _missing(self, job_id: str, caller: str) -> NoReturn:
        """Raise the problem of a job that is not there."""
        if _ID.fullmatch(job_id) and await self._store.was_deleted(job_id, caller):
            raise _gone()
        raise unknown_job()

    async def position(self, job: Job) -> int | None:
        """Return the number of jobs that start before a queued job, or None if it is not queued."""
        return await self._desk.position(job)

    def _wait_s(self, request: Request) -> float | None:
        text = request.query_params.get("wait")
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= 9):
            raise invalid_parameter("wait", "must be a whole number of seconds, such as 30")
        return min(float(text), self._max_wait_s)


def _gone() -> Problem:
    return Problem(410, "gone", "this job was deleted, or has expired, with its result")


def unknown_job() -> Problem:
    """Return the 404 problem for a job that the caller does not have."""
    return Problem(404, "not-found", "you have no job with this id; GET /jobs lists yours")


def raise_problem(job: Job) -> None:
    """Raise the problem with which a job has failed, if it has."""
    if job.problem is not None:
        raise Problem.of_record(job.problem)


def page_size(text: str | None) -> int:
    """Return the number of items that a page may have; raise a 422 problem for a malformed one."""
    if text is None:
        return DEFAULT_PAGE
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= MAX_PAGE):
        raise invalid_parameter("limit", f"must be a whole number from 1 to {MAX_PAGE}")
    return int(text)


def _no_result(job: Job) -> Problem:
    """Return the 409 problem for the result of a job that has none."""
    if not job.ended:
        detail = f"the job is {job.state}, {job.progress.percent:.0f} % done: ask again, or wait with `?wait=30`"
        return Problem(409, "conflict", detail, headers={"Retry-After": str(retry_after_s(job))})
    why = f": {job.problem['detail']}" if job.problem and "detail" in job.problem else ""
    ended = "failed" if job.state == "failed" else "was cancelled"
    return Problem(409, "conflict", f"the job {ended}, so it has no result{why}")


def _state(text: str | None) -> State | None:
    if text is None:
        return None
    for state in STATES:
        if text == state:
            return state
    raise invalid_parameter("state", f"must be one of {', '.join(STATES)}")


def _last_event_id(request: Request) -> int:
    """Return the id of the last event that a listener has, or 0.

    A page that cannot set the header, because it opens a stream for the first time, may send it as
    a parameter of the query.
    """
    header = request.headers.get("last-event-id")
    text = header if header is not None else request.query_params.get("last_event_id", "0")
    if text.isascii() and text.isdecimal() and len(text) <= 18:
        return int(text)
    detail = "must be the id of an event of this job"
    raise invalid_header("Last-Event-ID", detail) if header is not None else invalid_parameter("last_event_id", detail)
