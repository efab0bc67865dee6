"""A few jobs while processes are killed; `make chaos` has many, and kills more kinds.

The processes are those of the fake application, since `ryla serve` ends where a busy machine takes
long to replace the proxy or the ingress of the demo.
"""

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.http.examples import payload
from tests.chaos.customer import Customer
from tests.chaos.evidence import check_events, check_results
from tests.chaos.killer import Killer
from tests.chaos.orders import Kind, Order, make_orders
from tests.graph.conftest import Service
from tests.graph.orders import order

pytestmark = pytest.mark.graph
SEED, JOBS, AT_ONCE = 12, 12, 3
REPLICA = "ray::ServeReplica:fake:"
WEIGHTS = {f"{REPLICA}Wan26": 2.0, f"{REPLICA}FaceSwapper": 1.0, f"{REPLICA}Ingress": 2.0, f"{REPLICA}Runner": 3.0}
MOST = dict.fromkeys(WEIGHTS, 2)
VIDEO = {**order("losses", step_s=0.1), "steps": 4, "length": 5}
KINDS = (
    Kind("text", "wan2.6", {**VIDEO, "seed": 1}, "video/mp4"),
    Kind("swapped", "wan2.6-i2v-faceswap", {**VIDEO, "seed": 2}, "video/mp4"),
    Kind("image", "image-faceswap", payload("image-faceswap"), "image/png"),
)


@pytest.fixture
def customer(service: Service) -> Iterator[Customer]:
    customer = Customer(service.fake, "", None)
    yield customer
    customer.close()


def test_no_job_is_lost_or_done_twice_while_processes_are_killed(customer: Customer) -> None:
    undisturbed = {kind.name: customer.plain(Order(0, 0, kind, "stay")) for kind in KINDS}
    before = {record["id"] for record in customer.listed()}
    orders = make_orders(random.Random(SEED), JOBS, 1, KINDS)
    # The processes descend from this one.
    with Killer(SEED, os.getpid, weights=WEIGHTS, pause_s=3, most=MOST) as killer:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            deliveries = list(pool.map(customer.order, orders))
        for delivered in deliveries:
            customer.collect(delivered)
    assert killer.kills
    check_results(deliveries, undisturbed)
    check_events(deliveries)
    after = {record["id"] for record in customer.listed()}
    assert after - before == {job_id for delivered in deliveries for job_id in delivered.job_ids}
    assert len(after - before) == JOBS
