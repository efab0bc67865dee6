"""A demo under a supervisor, with several callers and a receiver of webhooks."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.customer import Customer, Delivered
from tests.chaos.evidence import check_events, check_files, check_records, check_results, check_webhooks
from tests.chaos.orders import Order, kinds, slow
from tests.chaos.receiver import SECRET, Receiver
from tests.chaos.supervised import Supervised, demo_config

CALLERS = 4
AT_ONCE = 2
"""The orders that each caller waits for at a time."""
RUNNER = {"num_cpus": 0.1, "media_processes": 2}
INGRESS_SCALE = {
    "min_replicas": 2,
    "max_replicas": 3,
    "target_ongoing_requests": 16,
    "upscale_delay_s": 1,
    "policy": {"policy_function": "serve.http.scaling:by_requests_at_work"},
}


@dataclass
class Site:
    """A service, its callers, and what they get when nothing is lost."""

    service: Supervised
    customers: list[Customer]
    receiver: Receiver
    undisturbed: dict[str, bytes]
    files: Path
    deliveries: list[Delivered]
    plain: int = 0
    """The jobs of callers who only waited."""

    def order(self, orders: Sequence[Order]) -> list[Delivered]:
        """Have the callers send ``orders``, several at a time; return what they got."""
        with ThreadPoolExecutor(CALLERS * AT_ONCE) as pool:
            return list(pool.map(lambda order: self.customers[order.caller].order(order), orders))

    def collect(self, deliveries: Sequence[Delivered]) -> None:
        """Get what has been ordered."""
        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(lambda delivered: self.customers[delivered.order.caller].collect(delivered), deliveries))
        self.deliveries += deliveries

    def check(self) -> None:
        """Assert that of all orders so far nothing was lost and nothing is there twice."""
        check_results(self.deliveries, self.undisturbed)
        check_records(self.deliveries, self.customers, before=self.plain)
        check_events(self.deliveries)
        again = check_webhooks(self.deliveries, self.receiver)
        check_files(self.files, len(self.deliveries))
        attempts = [delivered.record["attempts"] for delivered in self.deliveries]
        answers: Counter[str] = sum((customer.answers for customer in self.customers), start=Counter())
        print(f"{len(attempts)} jobs in {sum(attempts)} attempts, at most {max(attempts)}; {again} webhooks came again")
        print(f"{self.service.starts} starts of the service; repeated calls: {dict(answers)}", flush=True)


@contextmanager
def open_site(folder: Path, *, port: int, jobs: Mapping[str, Any], files: Path) -> Iterator[Site]:
    """Run a service with settings ``jobs``, whose files of jobs are in the folder ``files``."""
    names = [f"caller{number}" for number in range(CALLERS)]
    lines = [f"{name} {hashlib.sha256(name.encode()).hexdigest()}" for name in names]
    (folder / "keys").write_text("\n".join(lines))
    (folder / "secrets").write_text(SECRET)
    receiver = Receiver()
    webhooks = {"private_hosts": ["127.0.0.1"], "secret_file": str(folder / "secrets")}
    args = {
        "ingress": {"num_cpus": 0.1, "api_keys": str(folder / "keys")},
        "runner": RUNNER,
        # The disk of the embedded store is small, and gets full.
        "jobs": {"lease_s": 4, "min_free_bytes": 0, "webhooks": webhooks, **jobs},
    }
    deployments: list[dict[str, Any]] = [
        {"name": "Ingress", "autoscaling_config": INGRESS_SCALE},
        {"name": "Runner", "num_replicas": 2},
        {"name": "Wan22GGUF", "autoscaling_config": {"min_replicas": 0, "max_replicas": 1}},
    ]
    service = Supervised(folder, demo_config(port, args, deployments))
    customers = [Customer(service.url, name, receiver.url) for name in names]
    try:
        service.start()
        undisturbed = {kind.name: customers[0].plain(Order(0, 0, kind, "stay")) for kind in (*kinds(), slow())}
        yield Site(service, customers, receiver, undisturbed, files, [], plain=len(undisturbed))
    finally:
        service.stop()
        receiver.close()
        for customer in customers:
            customer.close()
