"""Long videos and films that are made beside something else."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from loadtest.payloads import body, film, swap_body
from serve.client import CallFailed, Client

POLL_S = 0.5
START_S = 60.0
"""Seconds within which the long jobs must have begun."""


class LongWork:
    """Keeps a job of each kind running until it is told to stop."""

    def __init__(self, url: str, key: str | None) -> None:
        self._stop = threading.Event()
        self._bodies = {"wan2.6": body("wan2.6", "full"), "batch-video-faceswap": swap_body(film("full"), "video/mp4")}
        self._begun = {endpoint: threading.Event() for endpoint in self._bodies}
        self._threads = [
            threading.Thread(target=self._keep, args=(url, key, endpoint), daemon=True) for endpoint in self._bodies
        ]
        self.made = dict.fromkeys(self._bodies, 0)
        """How many jobs of each endpoint have begun."""
        self.failures: list[str] = []

    def start(self) -> None:
        """Start the jobs and wait until models work on all of them; raise CallFailed if not."""
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + START_S
        for endpoint, begun in self._begun.items():
            if not begun.wait(max(0.0, deadline - time.monotonic())) or self.failures:
                reason = "; ".join(self.failures) or f"none was running after {START_S:g} s"
                raise CallFailed(f"no job of {endpoint} runs beside: {reason}")

    def stop(self) -> None:
        """Cancel the jobs and wait for their ends."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _keep(self, url: str, key: str | None, endpoint: str) -> None:
        with Client(url, key=key) as client:
            while not self._stop.is_set():
                try:
                    self._run(client, endpoint)
                except CallFailed as e:
                    self.failures.append(str(e))
                    self._begun[endpoint].set()  # nobody need wait for it any longer
                    return

    def _run(self, client: Client, endpoint: str) -> None:
        job = client.submit(endpoint, self._bodies[endpoint])
        has_ended = False
        try:
            while not self._stop.wait(POLL_S):
                record = job.status()
                if record.state == "running" or record.ended:
                    self.made[endpoint] += not self._begun[endpoint].is_set()
                    self._begun[endpoint].set()
                has_ended = record.ended
                if has_ended:
                    self.made[endpoint] += 1
                    if record.state == "failed":
                        raise CallFailed(f"{endpoint}: {(record.error or {}).get('detail')}")
                    return
        finally:
            with suppress(CallFailed):  # the service may be gone; the first error is the one to report
                if has_ended:
                    client.delete(job.id)
                else:
                    client.cancel(job.id)


@contextmanager
def long_work(url: str, key: str | None) -> Iterator[LongWork]:
    """Make long videos and films while the block runs."""
    work = LongWork(url, key)
    try:
        work.start()
        yield work
    finally:
        work.stop()
