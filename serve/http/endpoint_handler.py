"""Handles a POST to one of the endpoints: reads it, makes a job of it, answers with its result."""

import asyncio
import time
from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serve.config import AppConfig
from serve.http.bodies import read_body
from serve.http.callers.admission import Admission
from serve.http.callers.caller import caller_of
from serve.http.callers.quotas import Quotas
from serve.http.endpoints import Endpoint
from serve.http.jobs.handlers import JobHandlers, raise_problem
from serve.http.jobs.responses import accepted, see_result
from serve.http.jobs.store_problems import store_problems
from serve.http.jobs.submission import Submission, Submissions
from serve.http.negotiation import choose_media_type, parse_request_timeout, read_preferences
from serve.http.protocol.connection import TIMED_OUT, run_while_connected
from serve.http.reports.request_report import reported
from serve.http.responses import result_response
from serve.jobs.results.outcome import Outcome
from serve.jobs.store.record import Job
from serve.media.spool import Media
from serve.problems import Problem

GRACE_S = 30.0
"""Seconds for which the ingress waits for a job beyond its deadline, at which the Runner ends it.
"""


class EndpointHandler:
    """The handler of one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        config: AppConfig,
        submissions: Submissions,
        admission: Admission,
        quotas: Quotas,
        jobs: JobHandlers,
    ) -> None:
        self._endpoint = endpoint
        self._submissions = submissions
        self._desk = submissions.desk
        self._admission = admission
        self._quotas = quotas
        self._jobs = jobs
        self._timeout_s = config.limits.request_timeout_s
        self._max_wait_s = config.jobs.max_wait_s
        self._redirect_after_s = config.jobs.redirect_after_s

    async def __call__(self, request: Request) -> Response:
        """Answer a request; raise a Problem if it cannot be answered with a result."""
        with reported(self._endpoint.name) as report:
            caller, start = caller_of(request), time.time()
            self._admission.check(caller)
            with store_problems():
                await self._quotas.count(caller, request)
                timeout_s = parse_request_timeout(request.headers.get("request-timeout"), self._timeout_s)
                preferences = read_preferences(request.headers, max_wait_s=min(timeout_s, self._max_wait_s))
                media_type = choose_media_type(request.headers.get("accept"), self._endpoint.media_types)
                async with asyncio.timeout(timeout_s):  # a slow upload counts towards the request's time
                    fields = await read_body(request, form=True)
                submission = Submission(
                    endpoint=self._endpoint.name,
                    fields=fields,
                    caller=caller,
                    media_type=media_type,
                    request_id=request.state.request_id,
                    began_at=start,
                    timeout_s=timeout_s,
                    preferences=preferences,
                    durable=self._redirect_after_s is not None,
                )
                with self._admission.admit(caller):  # only now, so that a slow upload takes nobody's place
                    preparation = self._submissions.prepare(submission)
                    job, stored = await run_while_connected(request, preparation, start + timeout_s - time.time())
                    left_s = job.deadline_at - time.time() + GRACE_S
                    if job.durable:
                        response = await self._answer_durable(request, submission, job=job, stored=stored, left_s=left_s)
                    else:
                        outcome = await run_while_connected(request, self._desk.run(job, stored), left_s)
                        response = await self._result(outcome, {})
            return report.answered(response)

    async def _answer_durable(
        self, request: Request, submission: Submission, *, job: Job, stored: Media, left_s: float
    ) -> Response:
        """Accept a durable job; answer with its record, or with its result if the caller waits.

        ``left_s`` are the seconds until the job ends in any case.
        """
        preferences = submission.preferences
        accepted_job = await self._desk.accept(job, stored)
        # The job of an earlier request has a time limit of its own.
        grace_s = GRACE_S if accepted_job.id == job.id else 0.0
        job = accepted_job
        if preferences.patience_s is None:
            return await self._wait(request, job, submission, grace_s=grace_s)
        if preferences.patience_s > 0:
            # The job goes on if the caller leaves: it has been accepted.
            waited = await run_while_connected(request, self._desk.wait(job.id, preferences.patience_s), left_s)
            job = waited or job
            if job.ended:
                return await self._result(Outcome(job), {"Preference-Applied": preferences.applied})
        return accepted(job, position=await self._jobs.position(job), links=self._jobs.links(request), preferences=preferences)

    async def _wait(self, request: Request, job: Job, submission: Submission, *, grace_s: float) -> Response:
        """Answer with the result of a durable job, or lead to it where that takes too long here.

        The wait ends ``grace_s`` after the time limit of the request.
        """
        after_s, spent_s = self._redirect_after_s, time.time() - submission.began_at
        wait_s = max(0.0, submission.timeout_s - spent_s) + grace_s
        if after_s is not None:
            wait_s = min(wait_s, max(0.0, after_s - spent_s))
        try:
            waited = await run_while_connected(request, self._desk.wait(job.id, wait_s), wait_s + GRACE_S)
            job = waited or job
        except (ClientDisconnect, asyncio.CancelledError):
            if not submission.preferences.durable:  # it asked for no job, and has no link to this one
                await asyncio.shield(asyncio.ensure_future(self._desk.cancel(job.id, job.caller)))
            raise
        if after_s is not None and not job.ended:
            return see_result(job, links=self._jobs.links(request), wait_s=min(after_s, self._max_wait_s))
        return await self._result(Outcome(job), {})

    async def _result(self, outcome: Outcome, headers: Mapping[str, str]) -> Response:
        """Return the response with a job's result; raise the Problem that it ended with."""
        job, data = outcome.job, outcome.data
        raise_problem(job)
        if job.state == "cancelled":
            raise Problem(409, "conflict", f"the request was cancelled; send it again{_anew(job)} if that was a mistake")
        if job.result is None:
            raise Problem(504, "timeout", TIMED_OUT)
        try:
            media = data if data is not None else await self._desk.fetch(job)
        except FileNotFoundError:
            raise Problem(410, "gone", f"the result of this request has been deleted; send it again{_anew(job)}") from None
        return result_response(media, job.result.media_type, {**job.result.headers, **headers})


def _anew(job: Job) -> str:
    """Return how a request is sent again whose key stands for a job that has ended."""
    return "" if job.idempotency_key is None else " with a new `Idempotency-Key`"
