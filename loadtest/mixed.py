"""The short requests of a soak test: all endpoints, jobs, cancels, and callers who hang up."""

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from loadtest.payloads import body
from serve.client import CallFailed, Client, check_answer

REFUSALS = (429, 503)
PAUSE_S = 1.0
"""Seconds after which a caller who was refused comes back."""
HANG_UP_S = 0.15
"""Seconds after which a caller who hangs up does not wait any longer."""
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Turn:
    """What one request is sent with: a client, the key that it has, and its own random numbers."""

    client: Client
    key: str | None
    rng: random.Random


class Mixed:
    """Sends requests from several threads, and counts what became of them."""

    def __init__(self, url: str, key: str | None, *, seed: int = 1) -> None:
        self._url = url
        self._key = key
        self._seed = seed
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        """How many requests of each kind have ended as they should."""
        self.refused = 0
        self.errors: Counter[str] = Counter()

    @property
    def sent(self) -> int:
        """The number of requests that have ended, whatever became of them."""
        return self.done.total() + self.errors.total()

    def run(self, count: int, *, callers: int, deadline: float) -> None:
        """Send ``count`` more requests, or as many as end before ``deadline`` (monotonic)."""
        numbers = iter(range(count))
        threads = [threading.Thread(target=self._call, args=(numbers, deadline), daemon=True) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _call(self, numbers: Iterator[int], deadline: float) -> None:
        with Client(self._url, TIMEOUT_S, key=self._key) as client:
            while time.monotonic() < deadline:
                with self._lock:
                    if next(numbers, None) is None:
                        return
                    number = next(self._numbers)
                self._one(client, number, deadline)

    def _one(self, client: Client, number: int, deadline: float) -> None:
        """Send one request; where it is refused, come back until it is not."""
        rng = random.Random(f"{self._seed}-{number}")
        kind, act = rng.choices(list(KINDS.items()), list(WEIGHTS))[0]
        while True:
            try:
                act(Turn(client, self._key, rng))
            except CallFailed as e:
                if e.status in REFUSALS and time.monotonic() < deadline:
                    with self._lock:
                        self.refused += 1
                    time.sleep(PAUSE_S)
                    continue
                with self._lock:
                    self.errors[f"{kind}: {e}"[:300]] += 1
            except httpx.HTTPError as e:
                with self._lock:
                    self.errors[f"{kind}: {type(e).__name__}: {e}"[:300]] += 1
            else:
                with self._lock:
                    self.done[kind] += 1
            return


def _plain(endpoint: str) -> Callable[[Turn], None]:
    def act(turn: Turn) -> None:
        check_answer(endpoint, turn.client.call(endpoint, body(endpoint)))

    return act


def _job(turn: Turn) -> None:
    """Make a job, follow its events to its end, check its result and remove it."""
    endpoint = turn.rng.choice(("wan2.6", "wan22-i2v", "image-faceswap"))
    job = turn.client.submit(endpoint, body(endpoint))
    try:
        for _ in job.subscribe():
            pass
        check_answer(endpoint, job.result())
    finally:
        turn.client.delete(job.id)


def _cancel(turn: Turn) -> None:
    """Make a job and cancel it at once or a little later; it must then be cancelled or done."""
    job = turn.client.submit("wan2.6-i2v", body("wan2.6-i2v"))
    time.sleep(turn.rng.choice((0.0, 0.2, 0.5)))
    job.cancel()
    for record in job.subscribe():
        last = record
    if last.state == "failed":
        raise CallFailed(f"a cancelled job has failed: {(last.error or {}).get('detail')}")
    turn.client.delete(job.id)


def _hang_up(turn: Turn) -> None:
    """Send a request and close the connection before its answer."""
    endpoint = turn.rng.choice(("wan2.6", "batch-video-faceswap"))
    try:
        with httpx.Client(base_url=turn.client.url, timeout=httpx.Timeout(TIMEOUT_S, read=HANG_UP_S)) as http:
            headers = {"Authorization": f"Bearer {turn.key}"} if turn.key else {}
            response = http.post(f"/{endpoint}", json=body(endpoint), headers=headers)
    except httpx.ReadTimeout:
        return
    if response.status_code != 200:
        raise CallFailed(f"{endpoint}: {response.status_code} {response.text[:200]}", response.status_code)


KINDS: dict[str, Callable[[Turn], None]] = {
    "image-faceswap": _plain("image-faceswap"),
    "batch-video-faceswap": _plain("batch-video-faceswap"),
    "wan2.6": _plain("wan2.6"),
    "wan2.6-i2v-faceswap": _plain("wan2.6-i2v-faceswap"),
    "wan22-i2v": _plain("wan22-i2v"),
    "job": _job,
    "cancelled job": _cancel,
    "hung up": _hang_up,
}
"""Every kind of request, by the name under which it is counted."""
WEIGHTS = (60, 4, 8, 2, 2, 10, 8, 6)
"""How many of a hundred requests are of each kind."""
