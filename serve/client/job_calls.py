"""The calls about jobs, as flows."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import httpx

from serve.client.answers import CallFailed, refusal
from serve.client.flow import Emit, Flow, Send
from serve.client.records import JobRecord
from serve.client.request_body import encode_body
from serve.client.retries import Outage, Service, persist

TIMEOUT_S = 60
"""Seconds without a byte after which a request is sent again: these answers come at once."""
PAGE = 100
"""Jobs that are asked for at a time."""


def job_path(job_id: str, below: str = "") -> str:
    """Return the path of a job, whatever characters a caller's id has."""
    # `.` and `..` would lead to another path. Within a longer name, a dot means nothing.
    name = job_id.replace(".", "%2E") if job_id in (".", "..") else quote(job_id, safe="")
    return f"/jobs/{name}{below}"


def submit(service: Service, endpoint: str, fields: Mapping[str, Any], *, accept: str, idempotency_key: str) -> Flow[JobRecord]:
    """Make a job. Every attempt has the same key, so that there is one job however many arrive."""
    name = endpoint.strip("/")
    with ExitStack() as files:
        options = encode_body(fields, files)
        options["headers"] |= {"Accept": accept, "Prefer": "respond-async", "Idempotency-Key": idempotency_key}
        request = Send(method="POST", path=f"/{name}", options=options | {"timeout": TIMEOUT_S})
        response = yield from persist(request, name, service=service, outage=Outage(service.retries))
    return _record(name, response)


def status(service: Service, job_id: str) -> Flow[JobRecord]:
    """Ask for a job's record."""
    return _record(_name(job_id), (yield from _ask(service, "GET", job_id)))


def cancel(service: Service, job_id: str) -> Flow[JobRecord]:
    """Cancel a job, and return its record. One that has ended keeps its result."""
    return _record(_name(job_id), (yield from _ask(service, "POST", job_id=job_id, below="/cancel")))


def delete(service: Service, job_id: str) -> Flow[None]:
    """Cancel a job, or remove the result of one that has ended."""
    response = yield from _ask(service, "DELETE", job_id)
    if response.is_error:
        raise refusal(_name(job_id), response)


def jobs(service: Service, state: str | None, limit: int | None) -> Flow[None]:
    """Emit the caller's jobs, newest first, a page at a time."""
    left = limit
    query: httpx.QueryParams | None = httpx.QueryParams({} if state is None else {"state": state})
    while query is not None and left != 0:
        page = PAGE if left is None else min(left, PAGE)
        request = Send(method="GET", path="/jobs", options={"params": query.set("limit", page), "timeout": TIMEOUT_S})
        response = yield from persist(request, "jobs", service=service, outage=Outage(service.retries))
        if response.status_code != 200:
            raise refusal("jobs", response)
        found = _page(response)
        for record in found[:left]:
            yield Emit(record)
        left = None if left is None else max(left - len(found), 0)
        query = _next_page(response) if found and left != 0 else None


def _next_page(response: httpx.Response) -> httpx.QueryParams | None:
    """Return the query of the next page, or None if this is the last one."""
    link = response.links.get("next", {}).get("url")
    try:
        # Only the query of the link is used, so that a key never goes to another host.
        return httpx.URL(link).params if link else None
    except httpx.InvalidURL as e:
        raise CallFailed(f"jobs: the link to the next page is not a URL ({e})") from e


def outcome(record: JobRecord) -> CallFailed | None:
    """Return the error for a job that has ended without a result, or None."""
    if record.state == "cancelled":
        return CallFailed(f"{_name(record.id)} was cancelled")
    if record.state != "failed":
        return None
    problem = record.error or {}
    status, detail = problem.get("status"), problem.get("detail") or "the service did not say why"
    return CallFailed(f"{_name(record.id)} failed: {' '.join(str(x) for x in (status, detail) if x)}", status, problem)


def _name(job_id: str) -> str:
    return f"job {job_id}"


def _ask(service: Service, method: str, job_id: str, below: str = "") -> Flow[httpx.Response]:
    request = Send(method=method, path=job_path(job_id, below), options={"timeout": TIMEOUT_S})
    return (yield from persist(request, _name(job_id), service=service, outage=Outage(service.retries)))


def _record(name: str, response: httpx.Response) -> JobRecord:
    if not response.is_success:
        raise refusal(name, response)
    try:
        return JobRecord.from_json(response.json())
    except (KeyError, TypeError, ValueError) as e:
        raise CallFailed(f"{name}: {response.status_code}, but the answer is not the record of a job") from e


def _page(response: httpx.Response) -> list[JobRecord]:
    """Return the records of a page: an array, or an object with one under `jobs`."""
    try:
        content = json.loads(response.content)
        return [JobRecord.from_json(raw) for raw in (content if isinstance(content, list) else content["jobs"])]
    except (KeyError, TypeError, ValueError) as e:
        raise CallFailed("jobs: the answer is not a list of jobs") from e
