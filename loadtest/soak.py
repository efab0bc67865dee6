"""`make soak`: thousands of short requests of all kinds, and what they leave behind.

A fresh demo is warmed up, and what its processes use is noted. Then come 5,000 requests: pictures,
films, videos, jobs, cancelled jobs, and callers who hang up. It prints the slope of the memory of
every process, and how many processes, files, threads, actors and bytes in the object store are left
when nothing is asked for any more. It ends by itself, and with 1 if something grows, is left, or
failed.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from loadtest.growth import Totals, leaks, left, totals, trends
from loadtest.mixed import Mixed
from loadtest.verdict import exit_code
from loadtest.watched_processes import Watch, sample
from serve.cli.presets import find_preset
from serve.cli.ray_dashboard import RayDashboard
from serve.cli.service import running
from serve.client import Client

SETTLE_S = 120.0
"""Seconds within which what requests have used must be given back."""
SETTLE_POLL_S = 5.0


def totals_now(dashboard: RayDashboard) -> Totals:
    """Return what is in use; raise DashboardUnavailable if Ray does not say."""
    stored = sum(node.object_store_bytes for node in dashboard.nodes())
    return totals(sample(0), dashboard.actors(), stored)


def settled(look: Callable[[], Totals], *, seconds: float, poll_s: float = SETTLE_POLL_S) -> Totals:
    """Return the totals once they do not fall any more, or after ``seconds``."""
    deadline = time.monotonic() + seconds
    latest = look()
    while time.monotonic() < deadline:
        time.sleep(poll_s)
        before, latest = latest, look()
        if not left(latest, before):
            break
    return latest


def left_in_time(
    look: Callable[[], Totals], before: Totals, *, leeway: int, seconds: float, poll_s: float = SETTLE_POLL_S
) -> list[str]:
    """Return what is left of which there was less ``before``, once nothing is, or after a while."""
    deadline = time.monotonic() + seconds
    while (found := left(before, look(), leeway=leeway)) and time.monotonic() < deadline:
        time.sleep(poll_s)
    return found


def soak(client: Client, options: argparse.Namespace) -> list[str]:
    """Run the test, print its figures, and return a sentence for each bar that was missed."""
    deadline = time.monotonic() + 60 * options.minutes
    mixed = Mixed(client.url, os.environ.get("RYLA_API_KEY"))
    with RayDashboard(options.dashboard) as dashboard:

        def look() -> Totals:
            return totals_now(dashboard)

        mixed.run(options.warm_up, callers=options.callers, deadline=deadline)
        before = settled(look, seconds=SETTLE_S)
        warmed = mixed.sent
        print(f"after {warmed} requests to warm up: {before}", flush=True)
        watch = Watch(lambda: mixed.sent - warmed, options.sample_seconds)
        watch.start()
        begun = time.monotonic()
        mixed.run(options.requests, callers=options.callers, deadline=deadline)
        seconds = time.monotonic() - begun
        found = trends(watch.end())
        remains = left_in_time(look, before, leeway=options.leeway, seconds=SETTLE_S)
    sent = mixed.sent - warmed
    print(f"{sent} requests in {seconds:.0f} s, {dict(mixed.done)}, {mixed.refused} times refused", flush=True)
    for trend in found:
        print(trend)
    for text, count in mixed.errors.items():
        print(f"error, {count} times: {text}")
    misses = [*leaks(found, bar=options.slope_bar), *(f"left: {text}" for text in remains)]
    if mixed.errors:
        misses.append(f"{mixed.errors.total()} requests failed")
    if sent < options.requests:
        misses.append(f"only {sent} of {options.requests} requests were sent in {options.minutes:g} minutes")
    return misses


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the test on a fresh demo, and return 0 if no bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="demo", help="demo, single-gpu, production, or a Serve config file")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--warm-up", type=int, default=300, help="requests before what is in use is noted")
    parser.add_argument("--minutes", type=float, default=60, help="how long all requests may take together")
    parser.add_argument("--callers", type=int, default=4, help="requests at a time")
    parser.add_argument("--sample-seconds", type=float, default=5, help="time between two looks at the processes")
    parser.add_argument("--slope-bar", type=float, default=2, help="MiB a thousand requests by which a process may grow")
    parser.add_argument("--leeway", type=int, default=0, help="files and threads of a kind of process that may be left")
    parser.add_argument("--dashboard", default="http://127.0.0.1:8265", help="URL of Ray's dashboard")
    options = parser.parse_args(arguments)

    def misses() -> Sequence[str]:
        with running(find_preset(options.preset)) as client:
            return soak(client, options)

    return exit_code(misses)


if __name__ == "__main__":
    sys.exit(main())
