"""Many listen to one job: all get the same events, and nobody else notices."""

import asyncio
import json
import time
from typing import Any

import httpx
import psutil
import pytest

from loadtest.processes import running_processes
from tests.chaos.customer import ENDED
from tests.chaos.orders import kinds
from tests.chaos.site import CALLERS, Site

pytestmark = pytest.mark.graph
LISTENERS = 500
MOST_MIB = 200
"""The memory that all listeners together may cost in the processes of the service."""
LONG = {"steps": 30, "length": 17}
READY_S = 120


async def listen(client: httpx.AsyncClient, path: str, key: str, begun: asyncio.Semaphore) -> list[tuple[int, str, Any]]:
    """Return the events of a job: id, name and percent of each."""
    events: list[tuple[int, str, Any]] = []
    fields: dict[str, str] = {}
    async with client.stream("GET", path, headers={"Authorization": f"Bearer {key}"}) as stream:
        assert stream.status_code == 200, stream.status_code
        begun.release()
        async for line in stream.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "data" in fields:
                record = json.loads(fields["data"])
                if "id" in fields:  # without one, only the position has changed
                    events.append((int(fields["id"]), fields["event"], (record["stage"], record["step"], record["percent"])))
                fields = {}
    return events


def memory_mib(site: Site) -> float:
    """Return what ingress and proxy hold alone, in MiB."""
    root = site.service.root()
    found = [process for kind in ("ingress", "proxy") for process in running_processes(kind, root)]
    return sum(psutil.Process(process.pid).memory_full_info().uss for process in found) / 2**20


async def test_listeners_get_the_same_events_and_disturb_nobody(site: Site) -> None:
    kind = kinds()[0]
    root = site.service.root()
    replicas = {process.pid for process in running_processes("ingress", root)}
    assert len(replicas) == 2
    before = memory_mib(site)
    limits = httpx.Limits(max_connections=LISTENERS + 10, max_keepalive_connections=0)
    headers = {"Authorization": "Bearer caller0"}
    async with httpx.AsyncClient(base_url=site.service.url, timeout=300, limits=limits) as client:
        body = {**kind.body, **LONG, "width": 128, "height": 128}
        accepted = await client.post("/wan2.6", json=body, headers={**headers, "Prefer": "respond-async"})
        assert accepted.status_code == 202, accepted.text
        path = f"/jobs/{accepted.json()['id']}/events"
        begun = asyncio.Semaphore(0)
        names = ["caller0"] * LISTENERS  # a job is its own caller's only
        listening = [asyncio.ensure_future(listen(client, path, name, begun)) for name in names]
        for _ in range(LISTENERS):
            await asyncio.wait_for(begun.acquire(), READY_S)
        waits: list[float] = []
        peak = before
        while not all(task.done() for task in listening):
            start = time.monotonic()
            response = await client.get("/jobs?limit=1", headers={"Authorization": f"Bearer caller{CALLERS - 1}"})
            waits.append(time.monotonic() - start)
            assert response.status_code == 200
            peak = max(peak, memory_mib(site))
            await asyncio.sleep(0.5)
        heard = await asyncio.gather(*listening)
        deleted = await client.delete(path.removesuffix("/events"), headers=headers)
    print(f"{LISTENERS} listeners, {len(heard[0])} events: {peak - before:.0f} MiB more;", end=" ")
    print(f"{len(waits)} other requests took {sorted(waits)[len(waits) // 2]:.3f} s, at most {max(waits):.3f} s", flush=True)
    assert deleted.status_code == 204
    assert all(events == heard[0] for events in heard)
    assert [name for _, name, _ in heard[0] if name in ENDED] == ["succeeded"]
    assert [number for number, _, _ in heard[0]] == list(range(1, len(heard[0]) + 1))
    assert peak - before < MOST_MIB
    assert {process.pid for process in running_processes("ingress", root)} == replicas
