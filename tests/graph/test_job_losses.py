"""A few jobs of the demo while its processes are killed; `make chaos` has many, and kills more."""

import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.chaos.customer import Customer
from tests.chaos.evidence import check_events, check_results
from tests.chaos.killer import Killer
from tests.chaos.orders import Order, kinds, make_orders
from tests.graph.conftest import Service

pytestmark = pytest.mark.graph
SEED, JOBS, AT_ONCE = 12, 12, 3
WEIGHTS = {"Wan26": 2.0, "FaceSwapper": 1.0, "ingress": 2.0, "runner": 3.0, "proxy": 1.0}
MOST = {"Wan26": 2, "FaceSwapper": 1, "ingress": 2, "runner": 3, "proxy": 1}


def test_no_job_is_lost_or_done_twice_while_processes_are_killed(service: Service) -> None:
    customer = Customer(service.url, "", None)
    undisturbed = {kind.name: customer.plain(Order(0, 0, kind, "stay")) for kind in kinds()}
    before = {record["id"] for record in customer.listed()}
    orders = make_orders(random.Random(SEED), JOBS, 1)
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
    customer.close()
