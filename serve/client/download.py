"""Fetches the result of a job; a download that breaks off goes on where it was."""

import re
import time

import httpx

from serve.client.answers import Answer, CallFailed, no_answer, refusal
from serve.client.flow import Flow, Read, Send
from serve.client.follow import follow
from serve.client.job_calls import TIMEOUT_S, job_path, outcome, status
from serve.client.retries import Outage, Service, persist

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


def result(service: Service, job_id: str, *, wait: bool) -> Flow[Answer]:
    """Fetch a result, once the job has ended if ``wait`` is set. Its changes are emitted meanwhile.

    Raises CallFailed for a job that has failed, was cancelled or has not ended.
    """
    start = time.perf_counter()
    answer = yield from download(service, job_id)
    if answer.status_code == 409:
        record = yield from status(service, job_id)
        if not record.ended and wait:
            record = yield from follow(service, job_id)
        if failure := outcome(record):
            raise failure
        if record.ended:
            answer = yield from download(service, job_id)
    if answer.status_code != 200:
        raise refusal(f"job {job_id}", answer)
    return Answer(answer.content, answer.headers, time.perf_counter() - start)


def download(service: Service, job_id: str) -> Flow[httpx.Response]:
    """Return the whole result as one response, or the response that says why there is none."""
    name = f"job {job_id}"
    outage = Outage(service.retries)
    data = bytearray()
    most = 0
    etag = ""
    while True:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if data and etag:
            headers |= {"Range": f"bytes={len(data)}-", "If-Range": etag}
        else:
            data.clear()
        options = {"headers": headers, "timeout": TIMEOUT_S}
        request = Send(method="GET", path=job_path(job_id, "/result"), options=options, stream=True)
        response = yield from persist(request, name, service=service, outage=outage)
        if response.status_code == 416 and data:
            data.clear()
            yield outage.pause(refusal(name, response))
            continue
        if response.is_error:
            return response
        total = _total(response, len(data))
        if response.status_code != 206:
            data.clear()
        elif total is None or (data and response.headers.get("etag") != etag):  # it is not the rest of this file
            etag = ""
            yield outage.pause(CallFailed(f"{name}: the service sent a part of the result that was not asked for"))
            continue
        # A weak ETag does not promise the same bytes.
        etag = response.headers.get("etag", "")
        etag = "" if etag.startswith("W/") else etag
        lost = CallFailed(f"{name}: the result ended early")
        try:
            while chunk := (yield Read()):
                data += chunk
        except httpx.RequestError as e:
            lost = no_answer(name, service.url, e)
        else:
            if total is None or len(data) == total:
                return _whole(response, bytes(data))
        if len(data) > most:
            most = len(data)
            outage.over()
        yield outage.pause(lost)


def _total(response: httpx.Response, have: int) -> int | None:
    """Return the size of the whole result, or None if it is not known."""
    if response.status_code != 206:
        length = response.headers.get("content-length", "")
        return int(length) if length.isdecimal() else None
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    return int(match[2]) if match and int(match[1]) == have else None


def _whole(response: httpx.Response, data: bytes) -> httpx.Response:
    """Return a response with all of the bytes, whose headers are those of the last part."""
    headers = response.headers.copy()
    headers.pop("content-range", None)
    headers.pop("transfer-encoding", None)
    headers["content-length"] = str(len(data))
    return httpx.Response(200, headers=headers, content=data)
