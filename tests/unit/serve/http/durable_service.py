"""A service of two ingress replicas over one store, with a Runner in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from serve.jobs.desk import Jobs
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import HeldVideoModel, make_config, make_service_over
from tests.unit.serve.local_jobs import LocalDesk

ASYNC = {"Prefer": "respond-async"}
MP4 = {"Accept": "video/mp4"}
BODY = {"prompt": "a red circle", "seed": 5}
LIMIT_S = 60


class Service:
    """Two ingress replicas over one store, whose video model is held until it is let go.

    ``jobs`` are those of the second replica.
    """

    def __init__(self, one: httpx.AsyncClient, two: httpx.AsyncClient, model: HeldVideoModel, jobs: Jobs) -> None:
        self.one = one
        self.two = two
        self.model = model
        self.store = jobs.store
        self.desk_two = jobs.desk

    async def end(self, job_id: str) -> dict[str, Any]:
        """Return the record of a job once it has ended, as the other replica tells it."""
        async with asyncio.timeout(LIMIT_S):
            response = await self.two.get(f"/jobs/{job_id}/result", params={"wait": LIMIT_S})
        record: dict[str, Any] = (await self.two.get(f"/jobs/{job_id}")).json()
        assert response.status_code in (200, 409), response.text
        return record


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Service]:
    """Run the service."""
    model = HeldVideoModel()
    graph = FakeGraph(wan26=model)
    config = make_config(**settings)
    desk = LocalDesk(config, graph)
    desks = [Jobs(desk, desk.store, desk.files), desk.of_another_replica()]
    apps = [make_service_over(config, jobs, graph) for jobs in desks]
    clients = [httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") for app in apps]
    await desk.open()
    try:
        async with clients[0] as one, clients[1] as two:
            yield Service(one, two, model, desks[1])
    finally:
        model.let_go()
        for jobs in reversed(desks):
            await jobs.desk.close()
