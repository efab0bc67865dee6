"""Follows a job to its end: by server-sent events, and by asking where these do not arrive."""

import json

import httpx

from serve.client.answers import CallFailed, no_answer
from serve.client.event_stream import EventDecoder, ServerEvent
from serve.client.flow import Emit, Flow, Pause, Read, Send
from serve.client.job_calls import TIMEOUT_S, job_path, status
from serve.client.records import ENDED, JobRecord
from serve.client.retries import AGAIN, Outage, Service, persist

SILENCE_S = 45
"""Seconds without a byte after which a stream is lost: the service sends a comment every 15 s."""
BARREN = 3
"""Streams without news, one after the other, after which the client asks instead of listening."""
POLL_S = 2.0
"""Seconds between two questions."""
CROWDED = frozenset({429, 503})
"""Statuses of events that have no place for another listener, while the record can be read."""


def follow(service: Service, job_id: str) -> Flow[JobRecord]:
    """Emit a job's records as they change, the last one included, and return the last one."""
    outage = Outage(service.retries)
    last_id = ""
    barren = 0
    while barren < BARREN:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}
        options = {"headers": headers | ({"Last-Event-ID": last_id} if last_id else {})}
        options["timeout"] = httpx.Timeout(TIMEOUT_S, read=SILENCE_S)  # type: ignore[assignment]
        request = Send(method="GET", path=job_path(job_id, "/events"), options=options, stream=True)
        response = yield from persist(request, f"job {job_id}", service=service, outage=outage, again=AGAIN - CROWDED)
        if response.status_code != 200 or not response.headers.get("content-type", "").startswith("text/event-stream"):
            break  # asking finds out whether it is the job or only its events that cannot be had
        decoder = EventDecoder()
        barren += 1
        lost = CallFailed(f"job {job_id}: the events ended before the job did")
        try:
            while chunk := (yield Read()):
                for event in decoder.feed(chunk):
                    last_id = event.id or last_id
                    record = _record(event)
                    if record is None and event.name in ENDED:
                        record = yield from status(service, job_id)
                    if record is None:
                        continue
                    barren = 0
                    outage.over()
                    yield Emit(record)
                    if record.ended:
                        return record
        except httpx.RequestError as e:
            lost = no_answer(f"job {job_id}", service.url, e)
        yield outage.pause(lost)
    return (yield from poll(service, job_id))


def poll(service: Service, job_id: str) -> Flow[JobRecord]:
    """Emit a job's record whenever it has changed, and return the last one."""
    last: JobRecord | None = None
    while True:
        record = yield from status(service, job_id)
        if record != last:
            yield Emit(record)
        if record.ended:
            return record
        last = record
        yield Pause(POLL_S, "")


def _record(event: ServerEvent) -> JobRecord | None:
    try:
        return JobRecord.from_json(json.loads(event.data))
    except (KeyError, TypeError, ValueError):
        return None  # a kind of event that this client does not know
