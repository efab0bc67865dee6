"""Jobs of several callers while processes of the demo are killed, and while all of it is.

`make chaos` runs this for 200 jobs, as JOBS says. `tests/graph/test_job_losses.py` is a short one.
"""

import hashlib
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.customer import Customer, Delivered
from tests.chaos.evidence import check_events, check_files, check_records, check_results, check_webhooks
from tests.chaos.killer import Killer
from tests.chaos.orders import Order, kinds, make_orders
from tests.chaos.receiver import SECRET, Receiver
from tests.chaos.supervised import Supervised, demo_config

pytestmark = pytest.mark.graph
SEED, JOBS, CALLERS = int(os.environ.get("CHAOS_SEED", "20")), int(os.environ.get("CHAOS_JOBS", "200")), 4
AT_ONCE = 4
"""The orders that each caller waits for at a time."""
JOBS_OF_RESTART = 12
PORT = 8390
WEIGHTS = {"Wan26": 3.0, "FaceSwapper": 2.0, "ingress": 2.0, "runner": 3.0, "proxy": 1.5, "raylet": 0.7}
MOST = {"raylet": 3}
"""How often at most; each time the whole service starts again."""
PAUSE_S = 8.0


@dataclass
class Site:
    """A service, its callers, and what they get when nothing is lost."""

    service: Supervised
    customers: list[Customer]
    receiver: Receiver
    undisturbed: dict[str, bytes]
    jobs: Path
    deliveries: list[Delivered]

    def order(self, orders: Sequence[Order]) -> list[Delivered]:
        """Have the callers send ``orders``, several at a time; return what they got."""
        with ThreadPoolExecutor(CALLERS * AT_ONCE) as pool:
            return list(pool.map(lambda order: self.customers[order.caller].order(order), orders))

    def collect(self, deliveries: Sequence[Delivered]) -> None:
        """Get what has been ordered."""
        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(lambda delivered: self.customers[delivered.order.caller].collect(delivered), deliveries))
        self.deliveries += deliveries


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("chaos")
    names = [f"caller{number}" for number in range(CALLERS)]
    lines = [f"{name} {hashlib.sha256(name.encode()).hexdigest()}" for name in names]
    (folder / "keys").write_text("\n".join(lines))
    (folder / "secrets").write_text(SECRET)
    receiver = Receiver()
    args = {
        "ingress": {"num_cpus": 0.1, "api_keys": str(folder / "keys")},
        "jobs": {
            "folder": str(folder / "jobs"),
            "lease_s": 4,
            "max_attempts": 6,  # far more is lost here than in a year of production
            "webhooks": {"private_hosts": ["127.0.0.1"], "secret_file": str(folder / "secrets")},
        },
    }
    asleep = {"min_replicas": 0, "max_replicas": 1}
    deployments = [
        {"name": "Ingress", "num_replicas": 2},
        {"name": "Runner", "num_replicas": 2},
        {"name": "Wan22GGUF", "autoscaling_config": asleep},
    ]
    service = Supervised(folder, demo_config(PORT, args, deployments))
    customers = [Customer(service.url, name, receiver.url) for name in names]
    try:
        service.start()
        undisturbed = {kind.name: customers[0].plain(Order(0, 0, kind, "stay")) for kind in kinds()}
        yield Site(service, customers, receiver, undisturbed, folder / "jobs", [])
    finally:
        service.stop()
        receiver.close()
        shutil.copy(folder / "serve.log", "test-output/chaos.log") if Path("test-output").is_dir() else None


def check(site: Site) -> None:
    """Assert that of all orders so far nothing was lost and nothing is there twice."""
    check_results(site.deliveries, site.undisturbed)
    check_records(site.deliveries, site.customers, before=len(kinds()))
    check_events(site.deliveries)
    again = check_webhooks(site.deliveries, site.receiver)
    check_files(site.jobs, len(site.deliveries))
    attempts = [delivered.record["attempts"] for delivered in site.deliveries]
    answers = sum((customer.answers for customer in site.customers), start=site.customers[0].answers.__class__())
    print(f"{len(attempts)} jobs in {sum(attempts)} attempts, at most {max(attempts)}; {again} webhooks came again")
    print(f"{site.service.starts} starts of the service; repeated calls: {dict(answers)}", flush=True)


def test_no_job_is_lost_or_done_twice_while_processes_are_killed(site: Site) -> None:
    orders = make_orders(random.Random(SEED), JOBS, CALLERS)
    with Killer(SEED, site.service.root, weights=WEIGHTS, pause_s=PAUSE_S, most=MOST) as killer:
        deliveries = site.order(orders)
        site.collect(deliveries)
    print(f"killed: {dict(killer.counts())}", flush=True)
    site.service.wait_until_ready()
    check(site)
    assert len(killer.kills) >= JOBS / 10


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
    assert "queued" in states or "running" in states, states
    site.collect(deliveries)
    assert site.service.starts == begun + 1
    check(site)
