"""The span of a request in traces, by OpenTelemetry's conventions for HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Message, Scope, Send

from deployments.telemetry import tracing
from deployments.telemetry.origin import current_origin
from deployments.telemetry.tracing import NO_SPAN, Span
from serve.http.reports.route_templates import UNKNOWN, job_id_of, template_of
from serve.route_table import Row

_UNTRACED_ROWS = (Row.HOME, Row.DOCS, Row.HEALTH, Row.HEALTHZ, Row.METRICS, Row.OPENAPI, Row.READYZ)
UNTRACED = frozenset(row.path for row in _UNTRACED_ROWS)
"""Paths that are asked all the time, and paths of documentation: they have no spans."""

_SPAN = "span"
"""The name under which the state of a request has its span."""

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
"""The methods that spans name; any other is `_OTHER`."""


@contextmanager
def http_span(scope: Scope, traceparent: str) -> Iterator[Span]:
    """Record a request as a span, below the caller's own if it has sent one."""
    template = template_of(scope)
    if template in UNTRACED:
        yield NO_SPAN
        return
    method = scope["method"] if scope["method"] in METHODS else "_OTHER"
    attributes = {"http.request.method": method, "ryla.request.id": current_origin().request_id}
    if template != UNKNOWN:
        attributes["http.route"] = template
    if job_id := job_id_of(scope):
        attributes["ryla.job.id"] = job_id
    name = f"{method} {template}" if template != UNKNOWN else "HTTP"
    with tracing.span(name, attributes, kind="server", parent=traceparent) as span:
        scope.setdefault("state", {})[_SPAN] = span
        yield span


def link_to_job(scope: Scope, trace: str) -> None:
    """Link a request's span to the request that made the job which it asks about."""
    span: Span = scope.get("state", {}).get(_SPAN, NO_SPAN)
    span.link(trace)


def with_status(send: Send, span: Span) -> Send:
    """Return ``send`` such that the span learns the status of the answer."""
    if span is NO_SPAN:
        return send

    async def watched(message: Message) -> None:
        if message["type"] == "http.response.start":
            span.set({"http.response.status_code": message["status"]})
            if message["status"] >= 500:
                span.fail(str(message["status"]))
        await send(message)

    return watched
