"""What metrics and traces cost: the CPU time of one record and of one span, off and on.

    python -m benchmarks.telemetry

A request records some dozens of values, one of them for each denoise step, and has some dozens of
spans. Spans that are on go to a receiver on this machine; those that are not sampled are of a
request whose caller says so. Nothing here needs Ray to run.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

from benchmarks.span_receiver import receiving
from deployments.telemetry import tracing
from deployments.telemetry.metrics import DENOISE_STEP_SECONDS, DENOISE_STEPS, GPU_MEMORY_BYTES

RECORDED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""The `traceparent` of a request whose spans are recorded."""


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
    with tracing.span("denoise", {"ryla.model": "wan26"}, parent=RECORDED):
        pass


def _unsampled_span() -> None:
    with tracing.span("denoise", {"ryla.model": "wan26"}, parent=f"{RECORDED[:-1]}0"):
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
    with receiving(keep=False) as collector:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        tracing.read_environment()
        print(f"not sampled  {microseconds(_unsampled_span, count):8.2f} us")
        print(f"span, on     {microseconds(_span, count):8.2f} us")
        tracing.flush()


if __name__ == "__main__":
    main()
