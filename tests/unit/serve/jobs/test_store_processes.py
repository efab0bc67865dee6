"""Several processes at one store, and one that is killed while it writes."""

import asyncio
import secrets
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from serve.jobs.store.job_store import JobStore
from serve.jobs.store.redis_store import RedisStore
from serve.jobs.store.sqlite_store import SqliteStore
from tests.unit.serve.jobs.redis_server import RedisServer
from tests.unit.serve.jobs.samples import new_job


async def start_writer(address: str, prefix: str, job_id: str, count: int) -> Process:
    command = [sys.executable, "-m", "tests.unit.serve.jobs.writer", address, prefix, job_id, str(count)]
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE)


async def write_in_two_processes(store: JobStore, address: str, prefix: str = "") -> None:
    """Let two processes write to one job, and see that no event is lost or has two ids."""
    job = await store.create(new_job(), max_queued=9)
    await store.take("runner", job.id)
    writers = [await start_writer(address, prefix, job.id, 30) for _ in range(2)]
    assert [(await writer.communicate())[0].count(b"\n") for writer in writers] == [30, 30]
    events = await store.events(job.id, 0)
    assert [event.id for event in events] == list(range(1, 62))
    assert sorted(event.job.progress.step for event in events[1:]) == sorted([*range(30)] * 2)
    await store.close()


@pytest.mark.slow
async def test_events_of_two_processes_have_no_gaps_in_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "jobs.sqlite3"
    store = SqliteStore(path, busy_s=300)
    await store.open()
    await write_in_two_processes(store, str(path))


@pytest.mark.slow
async def test_events_of_two_processes_have_no_gaps_in_redis(redis_server: RedisServer) -> None:
    prefix = f"{secrets.token_hex(4)}:"
    store = RedisStore(redis_server.url, prefix=prefix, patience_s=300)
    await store.open()
    await write_in_two_processes(store, redis_server.url, prefix)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 25])
async def test_what_a_killed_process_has_written_is_there(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "jobs" / "jobs.sqlite3"
    store = SqliteStore(path, busy_s=300)
    await store.open()
    job = await store.create(new_job(), max_queued=9)
    await store.take("runner", job.id)
    writer = await start_writer(str(path), "", job.id, 1_000_000)
    assert writer.stdout is not None
    for _ in range(steps):
        last = int(await writer.stdout.readline())
    writer.kill()
    rest = (await writer.communicate())[0].split()
    last = int(rest[-1]) if rest else last
    # One more may be stored than was printed.
    events = await store.events(job.id, 0)
    assert [event.job.progress.step for event in events[1:]] in ([*range(last + 1)], [*range(last + 2)])
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert await store.finish(job.id, 1, state="failed", at=1.0, expires_at=2.0)
    await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
