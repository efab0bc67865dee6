"""The ingress and the Runner are replaced during jobs, as a changed setting does it."""

import httpx
import psutil
import pytest

from serve.cli.processes import ProcessTree
from serve.models import INGRESS
from serve.models import RUNNER as RUNNER_NAME
from tests.chaos.orders import Order, slow
from tests.chaos.site import CALLERS, RUNNER, Site
from tests.chaos.supervised import wait_for

pytestmark = pytest.mark.graph
JOBS = 10
REDEPLOY_S = 400


def replicas(site: Site) -> set[int]:
    """Return the process ids of the replicas of the ingress and of the Runner."""
    root = site.service.root()
    found = set()
    for process in ProcessTree(root).descendants() if root else []:
        try:
            title = " ".join(process.cmdline())
        except psutil.NoSuchProcess:  # it ended meanwhile
            continue
        if title.startswith(tuple(f"ray::ServeReplica:ryla:{name}" for name in (INGRESS, RUNNER_NAME))):
            found.add(process.pid)
    return found


def test_no_attempt_is_lost_when_ingress_and_runner_are_replaced(site: Site) -> None:
    deliveries = site.order([Order(20_000 + number, number % CALLERS, slow(), "leave") for number in range(JOBS)])
    before = replicas(site)
    site.service.redeploy({"runner": {**RUNNER, "webp_method": 1}})
    site.collect(deliveries)
    wait_for(lambda: not before & replicas(site), REDEPLOY_S, lambda: f"{before & replicas(site)} still run")
    wait_for(lambda: httpx.get(f"{site.service.url}/healthz").status_code == 200, REDEPLOY_S)
    assert [delivered.record["attempts"] for delivered in deliveries] == [1] * JOBS
    site.check()
