"""A Redis that hangs during jobs, and one that is killed and started again.

What was accepted is finished. What was not is refused with a problem that says when to come back.
"""

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from tests.chaos.customer import Delivered
from tests.chaos.orders import Order, kinds
from tests.chaos.outage import accepted, assert_refused, refused
from tests.chaos.site import CALLERS, Site
from tests.unit.serve.jobs.redis_server import RedisServer

pytestmark = pytest.mark.graph
AWAY_S = 30


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
