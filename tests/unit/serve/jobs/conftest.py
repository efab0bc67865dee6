"""The stores that the conformance tests run with, and the bench for Runners."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from serve.jobs.store.job_store import JobStore
from serve.jobs.store.sqlite_store import SqliteStore
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import HeldVideoModel, make_config
from tests.unit.serve.jobs.bench import Bench
from tests.unit.serve.jobs.redis_server import PROGRAM, RedisServer
from tests.unit.serve.local_jobs import running_loops

BUSY_MACHINE_S = 300
OpenStore = Callable[[], Awaitable[JobStore]]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server for tests that leave it running."""
    if PROGRAM is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "redis"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Open a store as another process would: all of them hold the same jobs."""
    stores: list[JobStore] = []
    if request.param == "redis":
        from serve.jobs.store.redis_store import RedisStore

        url, prefix = request.getfixturevalue("redis_server").url, f"{secrets.token_hex(4)}:"

    async def open_one() -> JobStore:
        store: JobStore = (
            SqliteStore(tmp_path / "jobs" / "jobs.sqlite3", busy_s=BUSY_MACHINE_S)
            if request.param == "sqlite"
            else RedisStore(url, prefix=prefix, patience_s=BUSY_MACHINE_S)
        )
        stores.append(store)
        await store.open()
        return store

    yield open_one
    for store in stores:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> JobStore:
    """A store without jobs."""
    return await open_store()


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A bench over a fake graph; a test may give settings of jobs by ``settings``."""
    marker = request.node.get_closest_marker("settings")
    graph = FakeGraph(wan26=HeldVideoModel(gate=None))
    bench = Bench(graph, make_config(jobs=dict(marker.kwargs) if marker else {}))
    await bench.desk.open()
    async with running_loops(bench.one), running_loops(bench.two):
        yield bench
    await bench.desk.close()
