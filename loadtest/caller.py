"""A user of the load test: the calls that all kinds of users make, and what is measured of them.

Locust makes `time.sleep` a pause of one user only. A refusal that says when to come back is no
error: the user comes back then. Every other answer that is not what its headers say is one.
"""

import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NoReturn

import httpx
from locust import HttpUser

from loadtest.measures import CANCEL, COST, FIRST_PROGRESS, FRAME_RATE, RESULT, RETRY_AFTER, SECONDS, Measures
from serve.client import Answer, CallFailed, JobRecord, check_answer
from serve.client.event_stream import EventDecoder
from serve.client.records import ENDED

REFUSALS = (429, 503)
"""The statuses of an answer that says when to come back."""
LONGEST_PAUSE_S = 30.0
"""The longest time for which a user stays away after a refusal."""
POLL_S = 0.5
"""Seconds between two questions about a job."""
JOB_TIMEOUT_S = 600.0
"""Seconds after which a job that has not ended is an error."""

MEASURES = Measures()
"""What the users of this process have measured since it was last reported."""


class Failed(Exception):
    """A call failed and was counted as an error; the user begins something else."""


class Refused(Exception):
    """The service refused a call and said when to come back."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"come back in {seconds:g} s")
        self.seconds = seconds


class Caller(HttpUser):
    """What all users can do. A task may end with ``Failed`` or ``Refused`` at any call."""

    abstract = True
    size: ClassVar[str] = "short"

    def on_start(self) -> None:
        """Send the key of `RYLA_API_KEY`, if there is one."""
        if key := os.environ.get("RYLA_API_KEY"):
            self.client.headers["Authorization"] = f"Bearer {key}"

    def plain(self, endpoint: str, fields: Mapping[str, Any], *, accept: str = "*/*", face_expected: bool = True) -> Answer:
        """POST and wait for the result, which is checked and measured."""
        begun = time.perf_counter()
        with self.client.post(
            f"/{endpoint}", json=fields, headers={"Accept": accept}, name=f"/{endpoint}", catch_response=True
        ) as response:
            seconds = time.perf_counter() - begun
            answer = self._result(endpoint, response, seconds, face_expected=face_expected)
        MEASURES.add(SECONDS, endpoint, seconds)
        return answer

    def upload(self, endpoint: str, files: Mapping[str, tuple[str, bytes, str]]) -> Answer:
        """POST a form with files and wait for the result, which is checked and measured."""
        begun = time.perf_counter()
        with self.client.post(f"/{endpoint}", files=files, name=f"/{endpoint} (form)", catch_response=True) as response:
            seconds = time.perf_counter() - begun
            answer = self._result(endpoint, response, seconds)
        MEASURES.add(SECONDS, endpoint, seconds)
        return answer

    def submit(self, endpoint: str, fields: Mapping[str, Any]) -> JobRecord:
        """Make a job and return its record."""
        with self.client.post(
            f"/{endpoint}",
            json=fields,
            headers={"Prefer": "respond-async"},
            name=f"/{endpoint} (job)",
            catch_response=True,
        ) as response:
            self._refuse(endpoint, response)
            if response.status_code != 202:
                self._fail(response, f"{endpoint}: {_described(response)}")
            return JobRecord.from_json(response.json())

    def poll(self, job: JobRecord) -> Iterator[JobRecord]:
        """Yield the record of a job again and again, its last one included."""
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while time.monotonic() < deadline:
            record = self.status(job)
            yield record
            if record.ended:
                return
            time.sleep(POLL_S)
        self._fail(None, f"{job.model}: a job has not ended after {JOB_TIMEOUT_S:g} s")

    def listen(self, job: JobRecord) -> Iterator[JobRecord]:
        """Yield the records in the server-sent events of a job, its last one included."""
        decoder = EventDecoder()
        name = "/jobs/{id}/events"
        with self.client.get(
            f"/jobs/{job.id}/events",
            headers={"Accept": "text/event-stream"},
            stream=True,
            name=name,
            catch_response=True,
            timeout=JOB_TIMEOUT_S,
        ) as response:
            self._refuse(name, response)
            if response.status_code != 200:
                self._fail(response, f"{name}: {_described(response)}")
            for chunk in response.iter_content(chunk_size=None):
                for event in decoder.feed(chunk):
                    record = _record_of(event.data)
                    if record is not None or event.name in ENDED:
                        yield self.status(job) if record is None else record
                    if event.name in ENDED:
                        return
            self._fail(response, f"{name}: the events ended before the job did")

    def status(self, job: JobRecord) -> JobRecord:
        """Return the record of a job as it is now."""
        with self.client.get(f"/jobs/{job.id}", name="/jobs/{id}", catch_response=True) as response:
            self._refuse("/jobs/{id}", response)
            if response.status_code != 200:
                self._fail(response, f"/jobs/{{id}}: {_described(response)}")
            return JobRecord.from_json(response.json())

    def follow(self, job: JobRecord, records: Iterator[JobRecord], *, begun: float, until_working: bool = False) -> JobRecord:
        """Read records to the last one, or to the first news of work, and measure that time.

        ``begun`` is when the job was made, by ``time.perf_counter``.
        """
        last, working = job, False
        for record in records:
            last = record
            if not working and record.state not in ("queued", "starting"):
                working = True
                MEASURES.add(FIRST_PROGRESS, job.model, time.perf_counter() - begun)
            if working and until_working:
                break
        return last

    def result(self, job: JobRecord, *, begun: float) -> Answer:
        """Download the result of a job that has succeeded, check it, and remove it."""
        name = "/jobs/{id}/result"
        with self.client.get(f"/jobs/{job.id}/result", name=name, catch_response=True) as response:
            seconds = time.perf_counter() - begun
            answer = self._result(job.model, response, seconds)
        MEASURES.add(RESULT, job.model, seconds)
        self._delete(job)
        return answer

    def cancel(self, job: JobRecord) -> JobRecord:
        """Cancel a job, and return its record once it has ended.

        A job that has succeeded meanwhile keeps its result, which is removed: nobody downloads it.
        """
        begun = time.perf_counter()
        name = "/jobs/{id}/cancel"
        with self.client.post(f"/jobs/{job.id}/cancel", name=name, catch_response=True) as response:
            self._refuse(name, response)
            if response.status_code not in (200, 202):  # 200: it had ended
                self._fail(response, f"POST {name}: {_described(response)}")
        for record in self.poll(job):
            last = record
        if last.state == "cancelled":
            MEASURES.add(CANCEL, job.model, time.perf_counter() - begun)
        elif last.state == "succeeded":
            self._delete(job)
        return last

    def fail_job(self, record: JobRecord) -> NoReturn:
        """Count a job that has ended without its result as an error."""
        detail = (record.error or {}).get("detail", "")
        self._fail(None, f"{record.model}: a job has {record.state}: {detail}"[:300])

    def stay_away(self, seconds: float) -> None:
        """Wait until the service said to come back."""
        time.sleep(min(seconds, LONGEST_PAUSE_S) * random.uniform(1.0, 1.2))

    def _delete(self, job: JobRecord) -> None:
        """Remove a job that has ended, with its result."""
        with self.client.delete(f"/jobs/{job.id}", name="/jobs/{id} (DELETE)", catch_response=True) as response:
            self._refuse("/jobs/{id}", response)
            if response.status_code != 204:  # 202: it had not ended
                self._fail(response, f"DELETE /jobs/{{id}}: {_described(response)}")

    def _result(self, endpoint: str, response: Any, seconds: float, *, face_expected: bool = True) -> Answer:
        """Return the result in a response after a check, and measure it."""
        self._refuse(endpoint, response)
        if response.status_code != 200:
            self._fail(response, f"{endpoint}: {_described(response)}")
        headers = httpx.Headers(dict(response.headers))
        answer = Answer(response.content, headers, seconds)
        unchecked = {} if face_expected else {"x-frames-swapped": "unchecked"}
        try:
            decoded = check_answer(endpoint, Answer(answer.data, httpx.Headers({**headers, **unchecked}), seconds))
        except CallFailed as e:
            self._fail(response, str(e))
        MEASURES.add(FRAME_RATE, endpoint, decoded.frames / max(seconds, 1e-6))
        MEASURES.add(COST, endpoint, float(headers.get("x-cost-usd", "0")))
        return answer

    def _refuse(self, endpoint: str, response: Any) -> None:
        """Raise Refused for an answer that says when to come back; Locust counts no failure."""
        if response.status_code not in REFUSALS:
            return
        retry_after = response.headers.get("Retry-After", "")
        if not retry_after.isdecimal() or int(retry_after) < 1:
            self._fail(response, f"{endpoint}: {response.status_code} without a Retry-After of a second or more")
        response.success()
        MEASURES.add(RETRY_AFTER, endpoint, float(retry_after))
        raise Refused(float(retry_after))

    def _fail(self, response: Any, text: str) -> NoReturn:
        """Count an error and raise Failed."""
        if response is not None:
            response.failure(text)
        MEASURES.add_error(text)
        raise Failed(text)


def _record_of(data: str) -> JobRecord | None:
    """Return the record in an event's data, or None for another kind of event."""
    try:
        return JobRecord.from_json(json.loads(data))
    except (KeyError, TypeError, ValueError):
        return None


def _described(response: Any) -> str:
    """Return what an answer says, or why there is none."""
    if response.status_code == 0:
        return f"no answer ({response.error})"
    return f"{response.status_code} {response.text[:200]}"
