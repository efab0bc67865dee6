"""A caller that wants its results whatever happens to the service, and sees what it gets."""

import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chaos.orders import Order

PATIENCE_S = 500
"""Seconds within which a call must succeed, again and again after losses."""
PAUSE_S = 2.0
ANSWERS_OF_LOSSES = frozenset({502, 503})
"""What a call may be answered while processes of the service are away."""
TOLD = ("state", "stage", "step", "percent", "attempts")
"""What is kept of an event's record. Its links, for example, are signed anew for each listener."""
ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Delivered:
    """What a caller got for an order."""

    order: Order
    job_ids: set[str] = field(default_factory=set)
    """The jobs that the service named; there must be one."""
    data: bytes = b""
    record: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)


class Customer:
    """Orders, and repeats calls that fail because something was lost.

    ``key`` is the caller's API key. ``answers`` counts the answers and failures that were repeated.
    """

    def __init__(self, url: str, key: str, webhook_url: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=120)  # which threads may share
        self._webhook = {} if webhook_url is None else {"Webhook-Url": webhook_url}
        self._lock = threading.Lock()
        self.answers: Counter[str] = Counter()

    def order(self, order: Order) -> Delivered:
        """Send an order, and stay for its result unless the caller leaves."""
        delivered = Delivered(order)
        headers = {"Idempotency-Key": order.key, "Accept": order.kind.accept, **self._webhook}
        if order.way == "stay":
            response = self._call("POST", f"/{order.kind.endpoint}", json=order.kind.body, headers=headers)
            assert response.status_code == 200, response.text
            delivered.data = response.content
        # The same key stands for the same job, so sending the order again gives its id.
        response = self._call(
            "POST", f"/{order.kind.endpoint}", json=order.kind.body, headers={**headers, "Prefer": "respond-async"}
        )
        assert response.status_code == 202, f"{response.status_code} {response.text}"
        delivered.job_ids.add(response.json()["id"])
        if order.way == "listen":
            delivered.events = self.events(response.json()["id"])
        elif order.way == "wait":
            self._wait(response.json()["id"])
        elif order.way == "poll":
            self.ended(response.json()["id"])
        return delivered

    def collect(self, delivered: Delivered) -> None:
        """Get the record, the result and the events of a job that has been ordered."""
        (job_id,) = delivered.job_ids
        delivered.record = self.ended(job_id)
        if delivered.record["state"] != "succeeded":
            return
        data = self._call("GET", f"/jobs/{job_id}/result").content
        assert delivered.data in (b"", data), f"the results of job {job_id} differ"
        delivered.data = data
        events = self.events(job_id)
        assert delivered.events in ([], events), f"the events of job {job_id} differ"
        delivered.events = events

    def ended(self, job_id: str) -> dict[str, Any]:
        """Return the record of a job once it has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            response = self._call("GET", f"/jobs/{job_id}")
            assert response.status_code == 200, f"{response.status_code} {response.text}"
            record: dict[str, Any] = response.json()
            if record["state"] in ENDED:
                return record
            assert time.monotonic() < deadline, record
            time.sleep(PAUSE_S)

    def events(self, job_id: str) -> list[tuple[int, str, dict[str, Any]]]:
        """Return the id, name and record of each event of a job, with as many calls as it takes."""
        events: list[tuple[int, str, dict[str, Any]]] = []
        deadline = time.monotonic() + PATIENCE_S
        while not events or events[-1][1] not in ENDED:
            assert time.monotonic() < deadline, f"the events of job {job_id} do not end: {events[-1:]}"
            headers = {"Last-Event-ID": str(events[-1][0] if events else 0)}
            try:
                with self._http.stream("GET", f"/jobs/{job_id}/events", headers=headers, timeout=30) as stream:
                    if stream.status_code != 200:
                        assert stream.status_code in ANSWERS_OF_LOSSES, stream.status_code
                        self._note(stream.status_code)
                        time.sleep(PAUSE_S)
                        continue
                    fields: dict[str, str] = {}
                    for line in stream.iter_lines():
                        name, _, value = line.partition(": ")
                        if line:
                            fields[name] = value
                        elif "data" in fields:
                            record = json.loads(fields["data"])
                            told = {name: record[name] for name in TOLD}
                            if "id" in fields:  # without one, only the position has changed
                                events.append((int(fields["id"]), fields["event"], told))
                            fields = {}
            except httpx.TransportError as error:
                self._note(type(error).__name__)
                time.sleep(PAUSE_S)
        return events

    def listed(self) -> list[dict[str, Any]]:
        """Return the records of all jobs that the caller has."""
        records: list[dict[str, Any]] = []
        path: str | None = "/jobs?limit=100"
        while path is not None:
            page = self._call("GET", path).json()
            records += page["jobs"]
            path = page["next"] and f"/jobs?{page['next'].partition('?')[2]}"  # the base may have a prefix
        return records

    def plain(self, order: Order) -> bytes:
        """Return the result of a plain POST."""
        response = self._call("POST", f"/{order.kind.endpoint}", json=order.kind.body, headers={"Accept": order.kind.accept})
        assert response.status_code == 200, response.text
        return response.content

    def _wait(self, job_id: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (response := self._call("GET", f"/jobs/{job_id}/result?wait=20")).status_code == 409:
            assert time.monotonic() < deadline, f"job {job_id} does not end"
        assert response.status_code == 200, f"{response.status_code} {response.text}"

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _call(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Return the first answer that is not one of losses."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                response = self._http.request(method, path, **content)
                if response.status_code not in ANSWERS_OF_LOSSES:
                    return response
                failure = f"{response.status_code} {response.text}"
                self._note(response.status_code)
            except httpx.TransportError as error:
                failure = repr(error)
                self._note(type(error).__name__)
            assert time.monotonic() < deadline, f"{method} {path} fails again and again: {failure}"
            time.sleep(PAUSE_S * random.uniform(0.5, 1.5))

    def _note(self, answer: object) -> None:
        with self._lock:
            self.answers[str(answer)] += 1
