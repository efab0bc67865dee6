"""`python -m loadtest.overload`: what a service does with more requests than it can answer.

It measures how many swaps of a face in a picture the service makes a second, and then asks for as
many, for twice and for ten times as many, whatever becomes of them. It prints the goodput, the time
of accepted requests, whether the others are refused at once with an honest Retry-After, how soon
the service is as quick as before, and how short swaps fare beside long videos and films. It ends by
itself, and with 1 if a bar was missed.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import httpx
import yaml

from loadtest.long_work import long_work
from loadtest.open_loop import Outcome, Request, as_request, ask, client, send_at_rate, send_in_turn
from loadtest.overload_figures import Bars, Overload, Phase, capacity, percentile, phase_of, recovery_s
from loadtest.payloads import body
from loadtest.verdict import exit_code
from serve.cli.presets import find_preset
from serve.cli.service import running
from serve.client import Answer, CallFailed, Client, check_answer
from serve.config import AppConfig

ENDPOINT = "image-faceswap"
WARM_UP_S = 5.0
GIVE_UP_S = 60.0
"""Seconds after which a service that is still slower than before has not recovered."""
USUAL = 1.5
"""How many times its former median an answer may take to be as quick as before."""
PROBES = 20
"""Requests one after the other by which the usual time is measured."""
RECOVERED_PROBES = 5
"""Quick answers, one after the other, after which the service has recovered."""
REFUSED_PAUSE_S = 0.2
SLACK = 1.5
"""How much longer than the queue takes at full capacity an accepted request may take."""
SLACK_S = 2.0


def is_right(response: httpx.Response) -> str:
    """Return what is wrong with a result, or an empty text."""
    try:
        check_answer(ENDPOINT, Answer(response.content, response.headers, 0.0))
    except CallFailed as e:
        return str(e)
    return ""


def queue_places(preset: str) -> int:
    """Return how many requests of one caller a service with this preset has in progress at most."""
    (application,) = yaml.safe_load(find_preset(preset).read_text())["applications"]
    return max(1, AppConfig.model_validate(application["args"]).ingress.max_concurrent_requests // 2)


async def probe(url: str, request: Request, count: int) -> list[Outcome]:
    """Send requests one after the other."""
    async with client(url) as http:
        return [await ask(http, request, is_right) for _ in range(count)]


async def watch_recovery(url: str, request: Request, usual_s: float) -> float | None:
    """Return the seconds until answers are as quick as before; None if they are not in time.

    The queue is empty when this is called: how long that took is a figure of the phase.
    """
    ended = time.monotonic()
    outcomes: list[Outcome] = []
    quick = 0
    async with client(url) as http:
        while quick < RECOVERED_PROBES and time.monotonic() < ended + GIVE_UP_S:
            outcomes.append(outcome := await ask(http, request, is_right))
            quick = quick + 1 if outcome.accepted and outcome.seconds <= usual_s else 0
            if not outcome.accepted:
                await asyncio.sleep(REFUSED_PAUSE_S)
    return recovery_s(outcomes, ended=ended, usual_s=usual_s) if quick >= RECOVERED_PROBES else None


def times(outcomes: Sequence[Outcome]) -> list[float]:
    """Return the seconds of results; raise CallFailed if one of the requests has none."""
    faulty = next((o for o in outcomes if not o.accepted or o.error), None)
    if faulty is not None:
        raise CallFailed(f"{ENDPOINT}: an undisturbed request failed: {faulty.error or faulty.status}")
    return [o.seconds for o in outcomes]


def measure(url: str, options: argparse.Namespace, places: int) -> list[str]:
    """Run all phases, print their figures, and return the bars that were missed."""
    key = os.environ.get("RYLA_API_KEY")
    request = as_request(f"/{ENDPOINT}", body(ENDPOINT), {"Authorization": f"Bearer {key}"} if key else {})
    asyncio.run(send_in_turn(url, request, callers=options.callers, seconds=WARM_UP_S, check=is_right))
    alone = times(asyncio.run(probe(url, request, PROBES)))
    usual_s = USUAL * percentile(alone, 0.5)
    rate = capacity(
        asyncio.run(send_in_turn(url, request, callers=options.callers, seconds=options.measure_seconds, check=is_right))
    )
    if rate <= 0:
        raise CallFailed(f"{ENDPOINT}: no request of {options.callers} callers was answered")
    print(
        f"alone: p50 {percentile(alone, 0.5):.3f} s; capacity {rate:.2f} results/s with {options.callers} callers", flush=True
    )
    phases: list[Phase] = []
    recovered: float | None = None
    for factor in options.factors:
        outcomes = asyncio.run(send_at_rate(url, [request], a_second=factor * rate, seconds=options.seconds, check=is_right))
        recovered = asyncio.run(watch_recovery(url, request, usual_s))
        phases.append(phase_of(outcomes, factor=factor, seconds=options.seconds))
        print(*phases[-1].lines(), sep="\n", flush=True)
        print("  not as quick as before" if recovered is None else f"  as quick as before after {recovered:.1f} s", flush=True)
    beside: list[float] = []
    if not options.no_beside:
        with long_work(url, key) as work:
            beside = times(asyncio.run(probe(url, request, PROBES)))
        print(
            f"beside long work {work.made}: p50 {percentile(beside, 0.5):.3f} s, p95 {percentile(beside, 0.95):.3f} s",
            flush=True,
        )
    bars = Bars(bound_s=SLACK * places / rate + SLACK_S, recovery_s=options.recovery_bar, beside=options.beside_bar)
    figures = Overload(phases=phases, recovered_s=recovered, alone_s=alone if beside else (), beside_s=beside)
    return figures.misses(bars)


def main(arguments: Sequence[str] | None = None) -> int:
    """Overload a fresh demo or the service at a URL, and return 0 if no bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a service that runs already; default: a fresh demo")
    parser.add_argument("--preset", default="demo", help="the preset whose queue the accepted requests wait in")
    parser.add_argument("--factors", type=float, nargs="+", default=[1, 2, 10], help="multiples of the capacity")
    parser.add_argument("--seconds", type=float, default=60, help="how long each of them lasts")
    parser.add_argument("--measure-seconds", type=float, default=20, help="how long the capacity is measured")
    parser.add_argument("--callers", type=int, default=8, help="callers who wait for answers while it is measured")
    parser.add_argument("--recovery-bar", type=float, default=10, help="seconds until the service is as quick as before")
    parser.add_argument(
        "--beside-bar", type=float, default=2, help="how many times longer a short swap may take beside long work"
    )
    parser.add_argument("--no-beside", action="store_true", help="leave out the swaps beside long work")
    options = parser.parse_args(arguments)

    def misses() -> Sequence[str]:
        service: Any = nullcontext(Client(options.url)) if options.url else running(find_preset(options.preset))
        with service as found:
            return measure(found.url, options, queue_places(options.preset))

    return exit_code(misses)


if __name__ == "__main__":
    sys.exit(main())
