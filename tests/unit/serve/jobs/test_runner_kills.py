"""Jobs over each kind of store, while the processes that run them are killed with SIGKILL.

`make chaos` runs this for 200 jobs (CHAOS_JOBS).
"""

import asyncio
import hashlib
import multiprocessing
import os
import random
import secrets
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from serve.config import AppConfig
from serve.jobs.open_store import open_stores
from serve.jobs.store.keys import request_key
from serve.media.spool import read_media
from tests.unit.serve.http.service import make_config
from tests.unit.serve.jobs import runner_process
from tests.unit.serve.jobs.job_builders import make_job, video
from tests.unit.serve.jobs.redis_server import PROGRAM, RedisServer
from tests.unit.serve.local_jobs import APPLICATION

pytestmark = pytest.mark.slow
SEED, RUNNERS = 20, 3
JOBS = int(os.environ.get("CHAOS_JOBS", "40"))
KILLS = JOBS // 8
PAUSE_S = 1.0
"""The mean time between two kills."""
KINDS = 4
"""The number of different requests, by their seeds."""
LIMIT_S = 400


class Runners:
    """The processes, each of which is replaced when it is killed."""

    def __init__(self, config: AppConfig) -> None:
        # Processes are forked off a clean one that has loaded the modules, which takes long.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([runner_process.__name__])
        self._config = config.model_dump_json()
        self._running: list[Any] = []
        self.started = 0

    def start(self) -> None:
        """Start one process."""
        self.started += 1
        process = self._context.Process(target=runner_process.main, args=(self._config, f"runner-{self.started}"), daemon=True)
        process.start()
        self._running.append(process)

    def kill(self, place: int) -> None:
        """Kill one process."""
        process = self._running.pop(place)
        process.kill()
        process.join()

    def kill_all(self) -> None:
        """Kill every process."""
        while self._running:
            self.kill(0)


@pytest.fixture(params=["sqlite", "redis"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> AppConfig:
    """Settings of each kind of store."""
    jobs: dict[str, Any] = {"lease_s": 3, "max_attempts": 10}
    if request.param == "sqlite":
        return make_config(jobs={**jobs, "folder": str(tmp_path / "jobs")})
    if PROGRAM is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    server: RedisServer = request.getfixturevalue("redis_server")
    database = server.url.removesuffix("/0") + f"/{secrets.randbelow(15) + 1}"
    return make_config(jobs={**jobs, "store": database, "files": (tmp_path / "files").as_uri()})


async def test_every_job_has_its_one_result(config: AppConfig) -> None:
    rng, runners = random.Random(SEED), Runners(config)
    store, files = open_stores(config.jobs, APPLICATION)
    await store.open()
    kinds: dict[str, int] = {}
    for number in range(JOBS):
        deadline_at = time.time() + 2 * LIMIT_S
        fields = {"caller": f"caller{number % 5}", "seed": number % KINDS, "deadline_at": deadline_at}
        job, stored = make_job(video(seed=number % KINDS), **fields)
        await files.put(request_key(job.id), read_media(stored))
        await store.create(job, max_queued=JOBS)
        kinds[job.id] = number % KINDS
    try:
        for _ in range(RUNNERS):
            runners.start()
        async with asyncio.timeout(LIMIT_S):
            for _ in range(KILLS):
                await asyncio.sleep(min(rng.expovariate(1 / PAUSE_S), 4 * PAUSE_S))
                runners.kill(rng.randrange(RUNNERS))
                runners.start()
            while await store.active():  # noqa: ASYNC110 -- the processes tell nobody
                await asyncio.sleep(0.2)
    finally:
        runners.kill_all()
    digests: dict[int, Counter[str]] = {kind: Counter() for kind in range(KINDS)}
    for job_id, kind in kinds.items():
        ended = await store.get(job_id)
        assert ended is not None
        assert ended.state == "succeeded", ended
        assert ended.result is not None
        assert ended.result.key is not None
        data = await files.get(ended.result.key)
        assert data is not None
        assert len(data) == ended.result.size
        digests[kind][hashlib.sha256(data).hexdigest()] += 1
        events = await store.events(job_id, 0)
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        assert [event.job.ended for event in events] == [False] * (len(events) - 1) + [True]
    assert [len(found) for found in digests.values()] == [1] * KINDS, "the same request has different results"
    assert len({digest for found in digests.values() for digest in found}) == KINDS
    left = {folder: await files.list(folder) for folder in ("requests", "previews", "results")}
    results = Counter(key.split("/")[1] for key, _ in left["results"])
    assert set(results) == set(kinds)
    # A process that is killed just after its job has ended leaves what it was about to delete.
    extra = len(left["requests"]) + len(left["previews"]) + results.total() - JOBS
    assert extra <= KILLS, left
    await store.close()
