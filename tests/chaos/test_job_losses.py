"""Jobs of several callers while processes of the demo are killed, and while all of it is.

`make chaos` runs this for 200 jobs; CHAOS_JOBS and CHAOS_SEED say otherwise.
`tests/graph/test_job_losses.py` is a short one.
"""

import os
import random

import pytest

from tests.chaos.killer import Killer
from tests.chaos.orders import Order, make_orders
from tests.chaos.site import CALLERS, Site

pytestmark = pytest.mark.graph
SEED, JOBS = int(os.environ.get("CHAOS_SEED", "20")), int(os.environ.get("CHAOS_JOBS", "200"))
JOBS_OF_RESTART = 12
WEIGHTS = {"Wan26": 3.0, "FaceSwapper": 2.0, "ingress": 2.0, "runner": 3.0, "proxy": 1.5, "raylet": 0.7}
MOST = {"raylet": 3}
"""How often at most; each time the whole service starts again."""
PAUSE_S = float(os.environ.get("CHAOS_PAUSE_S", "8"))
"""The mean time between two kills. A slow machine needs more to replace what was killed."""


def test_no_job_is_lost_or_done_twice_while_processes_are_killed(site: Site) -> None:
    orders = make_orders(random.Random(SEED), JOBS, CALLERS)
    with Killer(SEED, site.service.root, weights=WEIGHTS, pause_s=PAUSE_S, most=MOST) as killer:
        deliveries = site.order(orders)
        site.collect(deliveries)
    print(f"killed: {dict(killer.counts())}", flush=True)
    site.service.wait_until_ready()
    site.check()
    assert len(killer.kills) >= JOBS / 20


def test_jobs_finish_after_the_whole_cluster_was_killed(site: Site) -> None:
    begun = site.service.starts
    orders = [
        Order(10_000 + number, order.caller, order.kind, "leave")
        for number, order in enumerate(make_orders(random.Random(SEED + 1), JOBS_OF_RESTART, CALLERS))
    ]
    deliveries = site.order(orders)
    states = [customer.listed()[0]["state"] for customer in site.customers]
    killed = site.service.kill_all()
    print(f"killed all {killed} processes; the latest jobs were {states}", flush=True)
    assert {"queued", "starting", "running"} & set(states), states
    site.collect(deliveries)
    assert site.service.starts == begun + 1
    site.check()
