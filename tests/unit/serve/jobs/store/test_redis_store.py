"""What becomes of jobs when Redis, or the connection to it, is lost."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from serve.jobs.store.job_store import OutcomeUnknown, StoreUnavailable
from serve.jobs.store.record import Progress
from serve.jobs.store.redis_store import RedisStore
from tests.unit.serve.jobs.redis_server import PROGRAM, RedisServer
from tests.unit.serve.jobs.samples import new_job


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    """A store without jobs."""
    store = RedisStore(redis_server.url, prefix=f"{secrets.token_hex(4)}:", patience_s=300)
    await store.open()
    yield store
    await store.close()


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed (Debian: apt install redis-server)")
async def test_a_killed_server_comes_back_with_all_jobs(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    store, hasty = RedisStore(server.url, patience_s=300), RedisStore(server.url, patience_s=0.2)
    try:
        await store.open()
        jobs = [await store.create(new_job(), max_queued=99) for _ in range(20)]
        await store.take("runner", jobs[0].id)
        server.kill()
        with pytest.raises(StoreUnavailable):
            await hasty.create(new_job(), max_queued=99)
        with pytest.raises(StoreUnavailable):
            await hasty.get(jobs[0].id)
        late = [asyncio.create_task(store.create(new_job(), max_queued=99)) for _ in range(5)]
        step = asyncio.create_task(store.progress(jobs[0].id, 1, [Progress(stage="denoising")]))
        await asyncio.to_thread(server.start)
        jobs += await asyncio.gather(*late)
        assert await step
        assert {job.id for job in await store.active()} == {job.id for job in jobs}
        assert [event.id for event in await store.events(jobs[0].id, 0)] == [1, 2]
    finally:
        await store.close()
        await hasty.close()
        server.kill()


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed (Debian: apt install redis-server)")
async def test_a_server_that_hangs_reads_later_what_it_was_sent(tmp_path: Path) -> None:
    """So nobody can know what became of a call that it did not answer."""
    server = RedisServer(tmp_path)
    server.start()
    store, hasty = RedisStore(server.url, patience_s=300), RedisStore(server.url, patience_s=0.5)
    try:
        await store.open()
        await hasty.create(new_job(), max_queued=99)  # the server knows the script from now on
        job = new_job()
        server.hang()
        with pytest.raises(OutcomeUnknown):
            await hasty.create(job, max_queued=99)
        server.go_on()
        async with asyncio.timeout(60):
            while await store.get(job.id) is None:  # noqa: ASYNC110 -- the server tells nobody
                await asyncio.sleep(0.01)
    finally:
        await store.close()
        await hasty.close()
        server.go_on()
        server.kill()


async def test_a_change_is_made_once_if_its_answer_is_lost(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = Pipeline.execute
    lost: list[str] = []

    async def lose_answers(pipe: Pipeline, *args: Any, **options: Any) -> Any:
        changes = pipe.explicit_transaction
        answer = await execute(pipe, *args, **options)
        if changes and lost:
            lost.pop()
            raise RedisConnectionError("The connection was lost before the answer.")
        return answer

    monkeypatch.setattr(Pipeline, "execute", lose_answers)
    job = await store.create(new_job(), max_queued=9)
    lost.append("take")
    taken = await store.take("runner", job.id)
    assert taken is not None
    assert taken.attempt == 1
    lost.append("start")
    assert [started.id for started in await store.start("runner", slots={"wan26": 1}, max_running=1)] == [job.id]
    lost.append("progress")
    assert await store.progress(job.id, 1, [Progress(stage="denoising")])
    lost.append("finish")
    ended = await store.finish(job.id, 1, state="succeeded", at=1.0, expires_at=2.0)
    assert ended is not None
    assert await store.finish(job.id, 1, state="succeeded", at=1.0, expires_at=2.0) is None
    assert [event.job.state for event in await store.events(job.id, 0)] == ["queued", "starting", "running", "succeeded"]
    lost.append("delete")
    assert await store.delete(job.id) == ended
    assert not lost


async def test_a_server_that_refuses_is_told(store: RedisStore, redis_server: RedisServer) -> None:
    memory = store._client
    await memory.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable, match="memory of Redis is full"):
            await store.create(new_job(), max_queued=9)
    finally:
        await memory.config_set("maxmemory", 0)
    await store.create(new_job(), max_queued=9)
