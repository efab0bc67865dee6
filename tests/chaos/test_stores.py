"""The stores of jobs are lost for a while: a full disk, a Redis that hangs, and one that is killed.

What was accepted is finished. What was not is refused with a problem that says when to come back.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.chaos.customer import Delivered
from tests.chaos.orders import Order, kinds, slow
from tests.chaos.site import CALLERS, Site
from tests.chaos.supervised import wait_for
from tests.unit.serve.jobs.redis_server import RedisServer

pytestmark = pytest.mark.graph
JOBS = 8
AWAY_S = 30
FULL_S = 20
ANSWER_S = 20
"""Seconds within which a call is refused while the store does not answer."""


def accepted(site: Site, first: int) -> list[Delivered]:
    """Order jobs, some of which take a while, and return when one has begun."""
    every = (slow(), *kinds())
    orders = [Order(first + n, n % CALLERS, every[n % len(every)], "leave") for n in range(JOBS)]
    deliveries = site.order(orders)
    wait_for(lambda: [job for job in site.customers[0].listed() if job["state"] == "running"], 120)
    return deliveries


def refused(site: Site) -> httpx.Response:
    """Return the answer to an order that nothing repeats."""
    headers = {"Authorization": "Bearer caller1", "Prefer": "respond-async"}
    kind = kinds()[0]
    return httpx.post(f"{site.service.url}/{kind.endpoint}", json=kind.body, headers=headers, timeout=ANSWER_S)


def assert_refused(response: httpx.Response) -> None:
    """Assert that the answer says what is the matter, and when to come back."""
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "store of jobs" in response.json()["detail"]
    assert int(response.headers["retry-after"]) > 0


def fill(disk: Path) -> Path:
    """Fill a disk to its last block, and return the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return filler


def test_nothing_that_was_accepted_is_lost_on_a_full_disk(site: Site, disk: Path | None) -> None:
    if disk is None:
        pytest.skip("this user may not mount a disk that is small enough to fill")
    deliveries = accepted(site, 30_000)
    filler = fill(disk)
    try:
        assert_refused(refused(site))
        begun = time.monotonic()
        while time.monotonic() < begun + FULL_S:
            for delivered in deliveries:
                (job_id,) = delivered.job_ids
                headers = {"Authorization": f"Bearer caller{delivered.order.caller}"}
                assert httpx.get(f"{site.service.url}/jobs/{job_id}", headers=headers, timeout=30).status_code == 200
            time.sleep(1)
    finally:
        filler.unlink()
    site.collect(deliveries)
    site.check()


def lose(site: Site, away: Callable[[], None], back: Callable[[], None], first: int) -> None:
    """Lose the store while jobs run and others are sent, which must all be finished."""
    deliveries = accepted(site, first)
    late = [Order(first + 100 + n, n % CALLERS, kinds()[n % len(kinds())], "leave") for n in range(CALLERS)]
    sent: list[Delivered] = []
    sender = threading.Thread(target=lambda: sent.extend(site.order(late)))
    away()
    begun = time.monotonic()
    try:
        sender.start()
        assert_refused(refused(site))
        assert httpx.get(f"{site.service.url}/healthz", timeout=30).status_code == 200
        time.sleep(max(0.0, begun + AWAY_S - time.monotonic()))
    finally:
        back()
    sender.join()
    assert len(sent) == len(late)
    site.collect([*deliveries, *sent])
    # The order that was refused may have reached the server, which hung: then it is a job, too.
    ordered = {job_id for delivered in site.deliveries for job_id in delivered.job_ids}
    site.plain = sum(record["id"] not in ordered for customer in site.customers for record in customer.listed())
    site.check()


def test_nothing_that_was_accepted_is_lost_while_redis_hangs(redis_site: Site, redis: RedisServer) -> None:
    lose(redis_site, redis.hang, redis.go_on, 40_000)


def test_nothing_that_was_accepted_is_lost_when_redis_is_killed(redis_site: Site, redis: RedisServer) -> None:
    lose(redis_site, redis.kill, lambda: redis.start("--appendfsync", "everysec"), 50_000)
