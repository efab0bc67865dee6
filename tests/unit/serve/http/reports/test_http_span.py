"""The span of a request: its name, its attributes, and what becomes of it with the answer."""

from typing import Any

import pytest
from starlette.types import Message

from deployments.telemetry import tracing
from deployments.telemetry.origin import Origin, current_origin, working_for
from deployments.telemetry.tracing import NO_SPAN, Span
from serve.http.reports.http_span import METHODS, UNTRACED, http_span, link_to_job, with_status
from serve.http.reports.route_templates import TEMPLATES
from tests.unit.serve.http.asgi import http_scope

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
JOB = "0123456789abcdef" * 2


class Kept(Span):
    """A span that keeps what it is told."""

    trace = "00-the-span"

    def __init__(self, name: str, attributes: dict[str, Any], *, kind: str, parent: str) -> None:
        self.name, self.attributes, self.kind, self.parent = name, dict(attributes), kind, parent
        self.links: list[str] = []
        self.failed: list[str] = []
        self.ended = 0

    def set(self, attributes: Any) -> None:
        self.attributes |= attributes

    def link(self, trace: str) -> None:
        self.links.append(trace)

    def fail(self, reason: str) -> None:
        self.failed.append(reason)

    def end(self) -> None:
        self.ended += 1


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    """The spans that were begun."""
    begun: list[Kept] = []

    def begin(name: str, attributes: dict[str, Any], *, kind: str, parent: str) -> Kept:
        begun.append(Kept(name, attributes, kind=kind, parent=parent))
        return begun[-1]

    monkeypatch.setattr(tracing, "begin", begin)
    return begun


def test_a_request_is_a_span_below_its_callers_while_it_lasts(spans: list[Kept]) -> None:
    with working_for(Origin("the-request")):
        with http_span(http_scope("/wan2.6"), CALLER) as span:
            assert current_origin() == Origin("the-request", trace=Kept.trace)
            assert (span, spans[0].ended) == (spans[0], 0)
        assert current_origin() == Origin("the-request")
    (kept,) = spans
    assert (kept.name, kept.kind, kept.parent, kept.ended, kept.failed) == ("POST /wan2.6", "server", CALLER, 1, [])
    assert kept.attributes == {
        "http.request.method": "POST",
        "http.route": "/wan2.6",
        "ryla.request.id": "the-request",
    }


@pytest.mark.parametrize(
    ("method", "path", "name", "more"),
    [
        ("GET", f"/jobs/{JOB}/events", "GET /jobs/{id}/events", {"http.route": "/jobs/{id}/events", "ryla.job.id": JOB}),
        ("GET", "/jobs/a prompt", "GET /jobs/{id}", {"http.route": "/jobs/{id}"}),
        ("GET", "/a prompt", "HTTP", {}),
        ("BREW", "/wan2.6", "_OTHER /wan2.6", {"http.route": "/wan2.6"}),
        ("BREW", "/a prompt", "HTTP", {}),
    ],
)
def test_nothing_that_a_caller_writes_is_in_a_span(
    spans: list[Kept], method: str, path: str, name: str, more: dict[str, str]
) -> None:
    with http_span(http_scope(path, method), ""):
        pass
    (kept,) = spans
    assert kept.name == name
    known = method if method in METHODS else "_OTHER"
    assert kept.attributes == {"http.request.method": known, "ryla.request.id": "", **more}


@pytest.mark.parametrize("path", sorted(UNTRACED))
def test_probes_and_documentation_have_no_span(spans: list[Kept], path: str) -> None:
    assert path in TEMPLATES
    scope = {**http_scope(f"/films{path}", "GET"), "root_path": "/films"}
    with http_span(scope, CALLER) as span:
        link_to_job(scope, CALLER)
        assert span is NO_SPAN
    assert spans == []


def test_a_request_is_linked_to_the_one_that_made_the_job(spans: list[Kept]) -> None:
    scope = {**http_scope(f"/jobs/{JOB}", "GET"), "state": {"request_id": "the-id"}}
    with http_span(scope, ""):
        link_to_job(scope, CALLER)
    assert spans[0].links == [CALLER]
    assert scope["state"]["request_id"] == "the-id"
    link_to_job(http_scope(), CALLER)  # a request without a span has nothing to link


@pytest.mark.parametrize(("status", "failed"), [(200, []), (404, []), (499, []), (500, ["500"]), (503, ["503"])])
async def test_a_span_has_the_status_of_the_answer_and_fails_with_a_fault_of_ours(
    spans: list[Kept], status: int, failed: list[str]
) -> None:
    messages: list[Message] = [
        {"type": "http.response.start", "status": status, "headers": []},
        {"type": "http.response.body", "body": b"x"},
    ]
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with http_span(http_scope("/wan2.6"), "") as span:
        for message in messages:
            await with_status(send, span)(message)
    assert sent == messages
    assert (spans[0].attributes["http.response.status_code"], spans[0].failed) == (status, failed)
    assert with_status(send, NO_SPAN) is send
