"""Handles a POST to one of the endpoints: reads it, makes a job of it, answers with its result."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serve.config import AppConfig
from serve.http.admission import Admission
from serve.http.bodies import read_body
from serve.http.connection import run_while_connected
from serve.http.endpoints import Endpoint
from serve.http.job_responses import accepted_response
from serve.http.negotiation import JobWishes, choose_media_type, parse_preferences, parse_request_timeout
from serve.http.quotas import Quotas
from serve.http.responses import result_response
from serve.http.submission import Submission, Submissions
from serve.jobs.outcome import Outcome
from serve.jobs.record import Job
from serve.problems import Problem

GRACE_S = 30.0
"""Seconds for which the ingress waits for a job beyond its deadline, at which the Runner ends it."""


class EndpointHandler:
    """The handler of one endpoint."""

    def __init__(
        self, endpoint: Endpoint, *, config: AppConfig, submissions: Submissions, admission: Admission, quotas: Quotas
    ) -> None:
        self._endpoint = endpoint
        self._submissions = submissions
        self._desk = submissions.desk
        self._admission = admission
        self._quotas = quotas
        self._timeout_s = config.limits.request_timeout_s
        self._jobs = config.jobs

    async def __call__(self, request: Request) -> Response:
        """Answer a request; raise a Problem if it cannot be answered with a result."""
        caller = caller_of(request)
        self._admission.check(caller)
        start = time.time()
        preferences = parse_preferences(request.headers.getlist("prefer"))
        wishes = JobWishes.of(preferences, request.headers, self._jobs)
        timeout_s = parse_request_timeout(request.headers.get("request-timeout"), self._timeout_s)
        media_type = choose_media_type(request.headers.get("accept"), self._endpoint.media_types)
        limits = await self._quotas.admit(caller)
        async with asyncio.timeout(timeout_s):  # a slow upload counts towards the request's time
            fields = await read_body(request, form=True)
        submission = Submission(
            fields=fields,
            caller=caller,
            media_type=media_type,
            request_id=request.state.request_id,
            began_at=start,
            timeout_s=timeout_s,
            strict=preferences.get("handling") == "strict",
            wishes=wishes,
        )
        with self._admission.admit(caller):  # only now, so that a slow upload takes nobody's place
            response = await self._answer(request, submission)
        response.headers.update(limits)
        return response

    async def _answer(self, request: Request, submission: Submission) -> Response:
        job, stored = await self._submissions.prepare(self._endpoint, submission)
        left_s = job.deadline_at - time.time() + GRACE_S
        if not job.durable:
            outcome = await run_while_connected(request, self._desk.run(job, stored), left_s)
            return await self._result(outcome)
        job = await self._submissions.accept(job, stored)
        wait_s = left_s if submission.wishes.wait_s is None else submission.wishes.wait_s
        if wait_s > 0:
            # The job goes on if the caller leaves: it has been accepted.
            current = await run_while_connected(request, self._desk.wait(job.id, wait_s), left_s)
            if current is not None and current.ended:
                return await self._result(Outcome(current), submission.wishes.applied)
            job = current or job
        return accepted_response(job, submission.wishes)

    async def _result(self, outcome: Outcome, headers: Mapping[str, str] | None = None) -> Response:
        """Return the response with a job's result; raise the Problem that it ended with."""
        job = outcome.job
        raise_problem(job)
        assert job.result is not None
        data: Any = outcome.data
        if data is None:
            data = await self._desk.fetch(job)
        return result_response(data, job.result.media_type, {**job.result.headers, **(headers or {})})


def caller_of(request: Request) -> str:
    """Return the name of the caller's key, or the caller's address if no keys are configured."""
    name: str | None = getattr(request.state, "caller", None)
    return name or (request.client.host if request.client else "")


def raise_problem(job: Job) -> None:
    """Raise the Problem of a job that has not succeeded."""
    if job.problem is not None:
        raise Problem.of_record(job.problem)
    if job.state == "cancelled":
        raise Problem(409, "job-cancelled", "the request was cancelled; send it again if that was a mistake")
