"""What traces cost a request over HTTP: `python -m benchmarks.telemetry_service`.

It runs the demo with traces on and sends swaps in pictures, one after the other. By turns a
`traceparent` lets a request be recorded or not, so that both kinds meet the same processes at the
same time. It prints the time of each kind, and the CPU time of the replicas and the proxy, which
does not depend on what else the machine does.
"""

import argparse
import os
import secrets
import statistics
import time

import httpx
import psutil

from benchmarks.span_receiver import SpanReceiver, receiving
from serve.cli.presets import PRESETS
from serve.cli.processes import ProcessTree
from serve.cli.service import running
from serve.http.examples import payload

ENDPOINT = "image-faceswap"
SERVING = ("ray::ServeReplica:ryla:", "ray::ProxyActor")
"""How the titles of the processes begin that work for requests."""


def serving() -> list[psutil.Process]:
    """Return the processes that work for requests, and those that they have started."""
    found: dict[int, psutil.Process] = {}
    for process in ProcessTree().descendants():
        if " ".join(process.cmdline()).startswith(SERVING):
            found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return list(found.values())


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the CPU time that the processes have used, all threads together."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def send(http: httpx.Client, count: int, *, recorded: bool) -> list[float]:
    """Send requests one after the other, and return the seconds that each took."""
    taken = []
    for _ in range(count):
        trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{int(recorded):02x}"
        begin = time.perf_counter()
        http.post(f"/{ENDPOINT}", json=payload(ENDPOINT), headers={"traceparent": trace}).raise_for_status()
        taken.append(time.perf_counter() - begin)
    return taken


def measure(collector: SpanReceiver, url: str, *, rounds: int, requests: int) -> None:
    """Print what is measured of one running service."""
    with httpx.Client(base_url=url, timeout=300, trust_env=False) as http:
        for recorded in (True, False):
            send(http, 2 * requests, recorded=recorded)
        processes = serving()
        seconds: dict[bool, list[float]] = {True: [], False: []}
        cpu: dict[bool, list[float]] = {True: [], False: []}
        begun = len(collector.spans)
        for number in range(rounds):
            for recorded in (True, False) if number % 2 else (False, True):
                before = cpu_seconds(processes)
                seconds[recorded] += send(http, requests, recorded=recorded)
                cpu[recorded].append((cpu_seconds(processes) - before) / requests)
    spans = (len(collector.spans) - begun) / (rounds * requests)
    print(f"/{ENDPOINT}, {rounds} times {requests} requests of each kind; {spans:.1f} spans of each recorded one arrived")
    for name, found in (("time of a request", seconds), ("CPU time of a request", cpu)):
        on, off = statistics.median(found[True]), statistics.median(found[False])
        print(f"{name}: recorded {1000 * on:.2f} ms, not recorded {1000 * off:.2f} ms, {100 * (on / off - 1):+.2f} %")
    pairs = [on - off for on, off in zip(cpu[True], cpu[False], strict=True)]
    error = statistics.stdev(pairs) / len(pairs) ** 0.5
    share = 100 / statistics.mean(cpu[False])
    print(
        f"mean difference of CPU time: {1000 * statistics.mean(pairs):+.2f} ms ({share * statistics.mean(pairs):+.2f} %), "
        f"standard error {1000 * error:.2f} ms"
    )


def main() -> None:
    """Run the demo and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=25, help="requests of each kind a round")
    options = parser.parse_args()
    with receiving() as collector:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        with running(PRESETS / "demo.yaml") as client:
            measure(collector, client.url, rounds=options.rounds, requests=options.requests)


if __name__ == "__main__":
    main()
