"""Requests made from our own OpenAPI document: none fails, and each answer is as described."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
import jsonschema
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from starlette.testclient import TestClient

from serve.http.openai.errors import OpenAIErrors
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.form_parts import parts_of
from tests.unit.serve.http.generated_requests import JOB, Call, calls, makes
from tests.unit.serve.http.openapi_schema import without_nullable
from tests.unit.serve.http.service import make_service

SMALL = {"max_width": 64, "max_height": 64, "max_pixels": 64 * 64, "max_frames": 9, "max_steps": 4}
LONG = int(os.environ.get("RYLA_GENERATED_REQUESTS", "1000"))
BATCH = 500
"""The number of requests that one run of hypothesis draws."""
MORE_RSS = 80 * 2**20
"""How much a service may grow from the first fifth of many requests to the last."""


@dataclass
class Contract:
    """A service, its document, and what became of the requests so far."""

    client: TestClient
    document: dict[str, Any] = field(init=False)
    ids: list[str] = field(default_factory=list)
    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    made: Counter[bool] = field(default_factory=Counter)
    """How many requests that make something were accepted and refused."""
    forms: Counter[bool] = field(default_factory=Counter)
    """How many of them were forms."""
    rss: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.document = self.client.get("/openapi.json").json()
        self._components = without_nullable({"components": self.document["components"]})

    def send(self, call: Call) -> httpx2.Response:
        """Send a call and check its answer."""
        extra: dict[str, Any]
        if call.form and call.body:
            extra = {"files": parts_of(call.body), "headers": call.headers}
        elif call.body is not None:
            # Not the client's own JSON: a caller may send what is none, such as NaN.
            content = json.dumps(call.body).encode()
            extra = {"content": content, "headers": {**call.headers, "Content-Type": "application/json"}}
        else:
            extra = {"headers": call.headers}
        ids = self.ids[-20:] or ["0" * 32]
        url = call.url.replace(JOB, ids[-1 - call.job % len(ids)])
        response = self.client.request(call.method, url, params=call.params, **extra)
        if makes(call.method, call.path):
            self.made[response.status_code < 300] += 1
            if call.form:
                self.forms[response.status_code < 300] += 1
        self.check(response, call.operation, call)
        return response

    def check(self, response: httpx2.Response, operation: dict[str, Any], sent: object) -> None:
        """Check that an answer is one that the document describes."""
        self.requests += 1
        self.statuses[response.status_code] += 1
        if self.requests % 50 == 0:
            self.rss.append(psutil.Process().memory_info().rss)
        if self.requests % 1000 == 0:
            print(f"{self.requests} requests, RSS {self.rss[-1] / 2**20:.0f} MiB")
        assert response.status_code < 500, (sent, response.text)
        described = operation["responses"].get(str(response.status_code))
        if described is None:
            assert response.status_code >= 400, (sent, response.status_code)
            described = operation["responses"]["default"]
        content = described.get("content")
        if content is None:
            assert response.content == b"", (sent, response.text)
            return
        media_type = response.headers["content-type"].partition(";")[0]
        entry = content.get(media_type, content.get("*/*"))
        assert entry is not None, (sent, media_type, list(content))
        if media_type.endswith("json") and "schema" in entry:
            self.validate(response.json(), entry["schema"], sent)
        if response.status_code >= 400 and media_type == "application/problem+json":
            assert response.json()["status"] == response.status_code
            assert response.json()["detail"]

    def validate(self, body: Any, schema: dict[str, Any], sent: object) -> None:
        """Check JSON against a schema of the document."""
        try:
            jsonschema.Draft4Validator({**without_nullable(schema), **self._components}).validate(body)
        except jsonschema.ValidationError as error:
            raise AssertionError(f"{sent}: {error.message} at {list(error.absolute_path)}") from error

    def call(self, method: str, path: str, job_id: str, **headers: str) -> httpx2.Response:
        """Call an operation of a job, and check the answer."""
        response = self.client.request(method, path.replace("{id}", job_id), headers=headers)
        operation = self.document["paths"][path]["get" if method == "HEAD" else method.lower()]
        if method != "HEAD":
            self.check(response, operation, (method, path))
        return response

    def follow(self, job_id: str) -> None:
        """Follow the links of a job from its record to its deletion."""
        record = self.call("GET", "/jobs/{id}", job_id).json()
        assert {urlsplit(link).path for link in record["links"].values() if link} <= {
            f"/jobs/{job_id}{part}" for part in ("", "/events", "/result", "/preview")
        }
        events = self.call("GET", "/jobs/{id}/events", job_id).text
        records = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: ")]
        for each in records:
            self.validate(each, {"$ref": "#/components/schemas/Job"}, "an event")
        ended = records[-1] if records else record
        assert ended["state"] in ("succeeded", "failed", "cancelled"), ended
        kept = self.call("POST", "/jobs/{id}/cancel", job_id)
        assert (kept.status_code, kept.json()["state"]) == (200, ended["state"])
        result = self.call("GET", "/jobs/{id}/result", job_id)
        assert result.status_code == (200 if ended["state"] == "succeeded" else 409), ended
        if result.status_code == 200:
            assert self.call("HEAD", "/jobs/{id}/result", job_id).headers["content-length"] == str(len(result.content))
            part = self.call("GET", "/jobs/{id}/result", job_id, Range="bytes=1-9")
            assert (part.status_code, part.content) == (206, result.content[1:10])
        assert self.call("DELETE", "/jobs/{id}", job_id).status_code == 204
        assert self.call("GET", "/jobs/{id}", job_id).status_code == 410


@pytest.fixture
def contract() -> Iterator[Contract]:
    app = make_service(FakeGraph(), limits=SMALL, jobs={"webhooks": {"hosts": ["a.example"], "secret_file": "/keys"}})
    with TestClient(OpenAIErrors(app), follow_redirects=False, raise_server_exceptions=False) as client:
        yield Contract(client)


def run(contract: Contract, requests: int) -> None:
    """Send so many requests, and follow the jobs that they make."""
    drawn = calls(contract.document)

    def one(call: Call) -> None:
        response = contract.send(call)
        if not makes(call.method, call.path) or response.status_code >= 300 or "json" not in response.headers["content-type"]:
            return
        job_id = response.json().get("id")
        if job_id is not None:
            contract.ids.append(job_id)
            if len(contract.ids) % 3 == 0:  # the others stay, for calls that are drawn
                contract.follow(job_id)

    batch = 0
    while contract.requests < requests:
        # Hypothesis remembers all that one run has drawn, which would look as if the service grew.
        batch += 1
        options = settings(
            max_examples=min(BATCH, requests - contract.requests),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(batch)(options(given(drawn)(one)))()
    print(
        f"{contract.requests} requests: {dict(sorted(contract.statuses.items()))}, made {dict(contract.made)}, forms {dict(contract.forms)}"
    )
    accepted = sum(count for status, count in contract.statuses.items() if status < 400)
    assert not any(status >= 500 for status in contract.statuses)
    assert accepted >= 0.3 * contract.requests
    for made in (contract.made, contract.forms):
        assert made[True] >= 0.3 * made.total() > 0


@pytest.mark.slow
def test_generated_requests_are_answered_as_the_document_says_and_leave_nothing(contract: Contract) -> None:
    run(contract, LONG)
    assert len(contract.ids) > 10
    fifth = len(contract.rss) // 5
    early, late = max(contract.rss[: max(1, fifth)]), max(contract.rss[-max(1, fifth) :])
    print(f"RSS: {early / 2**20:.0f} MiB in the first fifth, {late / 2**20:.0f} MiB in the last")
    assert late - early < MORE_RSS
