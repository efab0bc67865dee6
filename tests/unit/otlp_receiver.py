"""A collector of traces: takes OTLP over HTTP and keeps the spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from deployments.telemetry import tracing


class Receiver:
    """The spans that were received, each with the attributes of the process that sent it."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.receive(self.path, ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def receive(self, path: str, request: Any) -> None:
        """Keep the spans of one export."""
        assert path == "/v1/traces"
        for group in request.resource_spans:
            self.resources.append({item.key: item.value.string_value for item in group.resource.attributes})
            for scope in group.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Any]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str, kind: int = 0) -> Any:
        """Return the only span of a name, and of a kind if one is given."""
        (span,) = [span for span in self.named(name) if kind in (0, span.kind)]
        return span


def attributes(span: Any) -> dict[str, Any]:
    """Return the attributes of a span."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


@contextmanager
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Let this process send traces to a new receiver within the block."""
    receiving = Receiver()
    thread = threading.Thread(target=receiving.server.serve_forever, args=(0.02,))
    thread.start()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiving.url)
    tracing.read_environment()
    try:
        yield receiving
    finally:
        if (provider := tracing._provider()) is not None:
            provider.shutdown()
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
        tracing.read_environment()
        receiving.server.shutdown()
        receiving.server.server_close()
        thread.join()
