"""What metrics and traces cost: the CPU time of one record and of one span, off and on.

    python -m benchmarks.telemetry

A request records some dozens of values, one of them for each denoise step, and has some dozens of
spans. Spans that are on go to a receiver on this machine. Nothing here needs Ray to run.
"""

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from deployments.telemetry import tracing
from deployments.telemetry.metrics import DENOISE_STEP_SECONDS, DENOISE_STEPS, GPU_MEMORY_BYTES


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def microseconds(work: Callable[[], None], count: int) -> float:
    """Return the median CPU time of one call over five series, in microseconds.

    It is that of all threads, and so also of the one that sends spans.
    """
    series = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(count):
            work()
        series.append((time.process_time() - start) / count * 1e6)
    return statistics.median(series)


def _span() -> None:
    with tracing.span("denoise", {"ryla.model": "wan26"}):
        pass


def main() -> None:
    """Print a line for each kind of record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2_000)
    count = parser.parse_args().count
    print(f"counter      {microseconds(lambda: DENOISE_STEPS.add(model='wan26'), count):8.2f} us")
    print(f"histogram    {microseconds(lambda: DENOISE_STEP_SECONDS.observe(1.0, model='wan26'), count):8.2f} us")
    print(f"gauge        {microseconds(lambda: GPU_MEMORY_BYTES.set(1, model='wan26', gpu='0'), count):8.2f} us")
    print(f"span, off    {microseconds(_span, count):8.2f} us")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    tracing.read_environment()
    print(f"span, on     {microseconds(_span, count):8.2f} us")
    tracing.flush()
    server.shutdown()


if __name__ == "__main__":
    main()
