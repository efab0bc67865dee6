"""A collector of traces on this machine: takes OTLP over HTTP and keeps the spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class SpanReceiver:
    """The spans that have arrived, each with the resource that it belongs to.

    Without ``keep`` they are not even read, so that they cost this process nearly nothing.
    """

    def __init__(self, *, keep: bool) -> None:
        self.spans: list[tuple[Any, dict[str, str]]] = []
        received = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for group in ExportTraceServiceRequest.FromString(body).resource_spans if keep else ():
                    resource = {item.key: item.value.string_value for item in group.resource.attributes}
                    received.extend((span, resource) for scope in group.scope_spans for span in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def serve(self) -> None:
        """Take spans until ``close``."""
        self._server.serve_forever()

    def close(self) -> None:
        """Take no more of them."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiving(*, keep: bool = True) -> Iterator[SpanReceiver]:
    """Take spans while the block runs."""
    receiver = SpanReceiver(keep=keep)
    thread = threading.Thread(target=receiver.serve, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.close()
        thread.join()
