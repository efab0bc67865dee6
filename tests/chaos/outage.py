"""Orders while a store of jobs is lost, and what an order must be answered that cannot be taken."""

import httpx

from tests.chaos.customer import Delivered
from tests.chaos.orders import Order, kinds, slow
from tests.chaos.site import CALLERS, Site
from tests.chaos.supervised import wait_for

JOBS = 8
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
