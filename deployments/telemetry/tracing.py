"""Traces by OpenTelemetry, switched on by its usual environment variables.

Nothing of OpenTelemetry is imported while they are off. The exporter and its settings are those of
OpenTelemetry's SDK: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and so on.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, Literal

from deployments.telemetry.origin import current_origin, working_for

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | float | bool]
SERVICE_NAME = "ryla-serve"
"""The name of the service in traces unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say it."""
EXPORTERS = ("otlp", "console", "none")
"""The values of OTEL_TRACES_EXPORTER that are known here."""

logger = logging.getLogger("ray.serve")
_lock = threading.Lock()


class Span:
    """A piece of work with a beginning and an end. This one records nothing."""

    trace = ""
    """The `traceparent` by which other spans become children of this one."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes, by their names."""

    def link(self, trace: str) -> None:
        """Refer to the span of another trace, which is given as ``Span.trace``, if it is one."""

    def fail(self, reason: str) -> None:
        """Mark the span as failed. ``reason`` must not quote what callers send."""

    def end(self) -> None:
        """End the span; further calls do nothing."""


NO_SPAN = Span()


class _RecordedSpan(Span):
    """A span of OpenTelemetry."""

    def __init__(self, span: Any) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def link(self, trace: str) -> None:
        from opentelemetry.trace import get_current_span

        linked = get_current_span(_context(trace)).get_span_context()
        if linked.is_valid:
            self._span.add_link(linked)

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, reason))

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()


def begin(name: str, attributes: Attributes | None = None, *, kind: Kind = "internal", parent: str | None = None) -> Span:
    """Return a new span, which the caller must end.

    ``parent`` is as ``Span.trace``; the default one is the current origin's span. A malformed one
    counts as none.
    """
    tracer = _tracer()
    if tracer is None:
        return NO_SPAN
    from opentelemetry.trace import SpanKind

    return _RecordedSpan(
        tracer.start_span(
            name,
            context=_context(current_origin().trace if parent is None else parent),
            kind=SpanKind[kind.upper()],
            attributes=attributes,
        )
    )


@contextmanager
def span(
    name: str, attributes: Attributes | None = None, *, kind: Kind = "internal", parent: str | None = None
) -> Iterator[Span]:
    """Record the block as a span, which is the parent of those that are begun in it.

    It is marked as failed if the block raises; the error's text may quote what callers send, so
    only its type is recorded.
    """
    begun = begin(name, attributes, kind=kind, parent=parent)
    if begun is NO_SPAN:
        yield begun
        return
    try:
        with working_for(replace(current_origin(), trace=begun.trace)):
            yield begun
    except BaseException as error:
        begun.fail(type(error).__name__)
        raise
    finally:
        begun.end()


def read_environment() -> None:
    """Read the variables again, which are read once otherwise."""
    for kept in (_asked_for, _make_tracer, _make_provider):
        kept.cache_clear()


def flush() -> None:
    """Send what has been recorded; a process does so at its end."""
    if _tracer() is not None:
        _provider().force_flush()


def exporters(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the exporters that the variables ask for; without any, tracing is off.

    OpenTelemetry's default is `otlp` to a collector on this machine. Here an endpoint or an
    exporter has to be named, since most machines have no collector.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    named = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if not named:
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        return ("otlp",) if any(environment.get(name) for name in endpoints) else ()
    names = tuple(dict.fromkeys(name.strip().lower() for name in named.split(",") if name.strip()))
    return () if "none" in names else names


@cache
def _asked_for() -> tuple[str, ...]:
    return exporters(os.environ)


def _tracer() -> Any:
    if not _asked_for():
        return None
    with _lock:
        return _make_tracer()


def _provider() -> Any:
    with _lock:
        return _make_provider()


@cache
def _make_tracer() -> Any:
    provider = _make_provider()
    return None if provider is None else provider.get_tracer("ryla")


@cache
def _make_provider() -> Any:
    """Return this process's provider, or None, with a line in the log, if there can be none.

    The SDK reads its variables in every one of its parts, and raises for a value that it cannot
    use. No request fails for that.
    """
    try:
        return _new_provider()
    except Exception as error:
        logger.error("no traces are recorded: %s (see the variables OTEL_*)", error)
        return None


def _new_provider() -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    made = [_exporter(name) for name in _asked_for()]
    processors = [BatchSpanProcessor(exporter) for exporter in made]
    resource = Resource.create().merge(Resource(_replica()))
    if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE_NAME}))
    provider = TracerProvider(resource=resource)
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def _replica() -> dict[str, str]:
    """Return the names of this replica and its deployment, as in its log; none outside of one."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        replica = serve.get_replica_context()
    except RayServeException:
        return {}
    return {"ryla.deployment": replica.deployment, "ryla.replica": replica.replica_tag}


def _exporter(name: str) -> Any:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name != "otlp":
        raise ValueError(f"OTEL_TRACES_EXPORTER is `{name}`; use {', '.join(EXPORTERS)}")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol == "grpc":
        # The package is not among those that the service needs.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _context(trace: str) -> Any:
    """Return OpenTelemetry's context for a `traceparent`; an empty one for a malformed one."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": trace}, context=Context())
