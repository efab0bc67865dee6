"""The responses about a job that has not ended: its record, and the way to its result."""

import math
from typing import Any

from starlette.responses import JSONResponse, Response

from serve.http.jobs.record import Links, field_headers, record_of, retry_after_s
from serve.http.negotiation import Preferences
from serve.jobs.store.record import Job


def accepted(job: Job, *, position: int | None, links: Links, preferences: Preferences) -> Response:
    """Return the 202 response to a request that became ``job``."""
    response = record_response(job, position=position, links=links, status=202)
    response.headers["Location"] = links.plain(job)
    response.headers.update(field_headers(job))
    if preferences.applied:
        response.headers["Preference-Applied"] = preferences.applied
    return response


def see_result(job: Job, *, links: Links, wait_s: float) -> Response:
    """Return the 303 response that leads to the result and waits for it there, in whole seconds."""
    location = links.of(job, "/result", f"wait={max(1, math.floor(wait_s))}")
    return Response(status_code=303, headers={"Location": location, "Cache-Control": "no-store"})


def record_response(job: Job, *, position: int | None, links: Links, status: int = 200) -> Response:
    """Return a response with the record; `Retry-After` says when it may have changed."""
    record: dict[str, Any] = record_of(job, position=position, links=links)
    headers = {"Cache-Control": "no-store"}
    if not job.ended:
        headers["Retry-After"] = str(retry_after_s(job))
    return JSONResponse(record, status, headers=headers)
