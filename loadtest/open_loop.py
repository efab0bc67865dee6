"""Load that does not wait for answers: requests begin at their times, however slow the service is.

Users who wait for an answer before they ask again hide an overload: the slower the service, the
less they ask of it. These requests are asked whatever became of the ones before.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

REFUSALS = (429, 503)
"""The statuses of an answer that says when to come back."""
TIMEOUT_S = 300.0
"""Seconds after which a request without an answer has failed."""
MOST_OPEN = 900
"""The most requests that are open at a time: the proxy refuses connections beyond 1,000."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one request. Times are by ``time.monotonic``.

    ``status`` is 0 if there was no answer. ``retry_after_s`` is what a refusal said, or None.
    """

    begun: float
    ended: float
    status: int
    retry_after_s: float | None = None
    error: str = ""

    @property
    def seconds(self) -> float:
        """How long the answer took."""
        return self.ended - self.begun

    @property
    def accepted(self) -> bool:
        """Whether the answer is a result."""
        return self.status == 200

    @property
    def refused(self) -> bool:
        """Whether the service said that it is busy."""
        return self.status in REFUSALS


@dataclass(frozen=True)
class Request:
    """What is sent again and again: the JSON of ``body`` as bytes, which are encoded once."""

    path: str
    body: bytes
    headers: Mapping[str, str]


Check = Callable[[httpx.Response], str]
"""Returns what is wrong with a result, or an empty text."""


async def ask(http: httpx.AsyncClient, request: Request, check: Check) -> Outcome:
    """Send a request and return what became of it."""
    begun = time.monotonic()
    try:
        headers = {"Content-Type": "application/json", **request.headers}
        response = await http.post(request.path, content=request.body, headers=headers)
    except httpx.HTTPError as e:
        return Outcome(begun=begun, ended=time.monotonic(), status=0, error=f"{type(e).__name__}: {e}")
    ended = time.monotonic()
    error = ""
    retry_after = response.headers.get("Retry-After", "")
    if response.status_code == 200:
        error = check(response)
    elif response.status_code not in REFUSALS:
        error = f"{response.status_code} {response.text[:200]}"
    elif not retry_after.isdecimal() or int(retry_after) < 1:
        error = f"{response.status_code} without a Retry-After of a second or more"
    said = float(retry_after) if retry_after.isdecimal() else None
    return Outcome(begun=begun, ended=ended, status=response.status_code, retry_after_s=said, error=error)


def client(url: str) -> httpx.AsyncClient:
    """Return a client that opens as many connections as there are requests."""
    limits = httpx.Limits(max_connections=MOST_OPEN, max_keepalive_connections=MOST_OPEN)
    return httpx.AsyncClient(base_url=url, limits=limits, timeout=TIMEOUT_S)


async def send_at_rate(
    url: str, requests: Sequence[Request], *, a_second: float, seconds: float, check: Check
) -> list[Outcome]:
    """Begin ``a_second`` requests, by turns those of ``requests``, and return all outcomes.

    A request for which there is no connection left fails at once, and is counted as not sent.
    """
    outcomes: list[Outcome] = []
    open_tasks: set[asyncio.Task[None]] = set()
    kinds = itertools.cycle(requests)

    async with client(url) as http:

        async def one(request: Request) -> None:
            outcomes.append(await ask(http, request, check))

        begun = time.monotonic()
        for number in range(max(1, round(a_second * seconds))):
            await asyncio.sleep(max(0.0, begun + number / a_second - time.monotonic()))
            if len(open_tasks) >= MOST_OPEN:
                now = time.monotonic()
                outcomes.append(Outcome(begun=now, ended=now, status=0, error="not sent: too many requests are open"))
                continue
            task = asyncio.ensure_future(one(next(kinds)))
            open_tasks.add(task)
            task.add_done_callback(open_tasks.discard)
        while open_tasks:
            await asyncio.wait(set(open_tasks))
    return outcomes


async def send_in_turn(url: str, request: Request, *, callers: int, seconds: float, check: Check) -> list[Outcome]:
    """Have each of ``callers`` send its next request when the last one is answered."""
    outcomes: list[Outcome] = []
    async with client(url) as http:

        async def caller() -> None:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                outcomes.append(outcome := await ask(http, request, check))
                if not outcome.accepted:
                    await asyncio.sleep(0.2)

        await asyncio.gather(*(caller() for _ in range(callers)))
    return outcomes


def as_request(path: str, fields: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Request:
    """Return a request with these fields as JSON."""
    return Request(path, json.dumps(fields).encode(), headers or {})
