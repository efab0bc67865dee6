"""The file of the embedded store: who may open it, and what happens when it cannot be written."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from serve.jobs.store.job_store import StoreUnavailable
from serve.jobs.store.record import Progress
from serve.jobs.store.sqlite_database import SqliteDatabase
from serve.jobs.store.sqlite_store import SqliteStore
from tests.unit.serve.jobs.samples import new_job


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a store."""
    return tmp_path / "jobs" / "jobs.sqlite3"


async def test_only_its_owner_can_open_the_file(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    store = SqliteStore(path)
    await store.open()
    await store.create(new_job(), max_queued=1)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    await store.close()


async def test_a_folder_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    another = os.geteuid() + 1
    monkeypatch.setattr("serve.jobs.store.private_folder.os.geteuid", lambda: another)
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match="belongs to another user"):
        await store.open()
    await store.close()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("version", [1, 99])
async def test_jobs_of_another_release_are_left_alone(path: Path, version: int) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE schema_version SET version = ?", (version,))
    connection.close()
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match=f"version {version}"):
        await store.open()
    await store.close()


async def test_a_full_disk_is_told_and_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path)
    await store.open()
    job = await store.create(new_job(), max_queued=9)
    await store.close()
    connect = SqliteDatabase._connect

    def connect_small(database: SqliteDatabase) -> sqlite3.Connection:
        connection = connect(database)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 3}")
        return connection

    monkeypatch.setattr(SqliteDatabase, "_connect", connect_small)
    store = SqliteStore(path)
    await store.take("runner", job.id)
    large = [Progress(stage="denoising", step=step, detail="x" * 100) for step in range(1000)]
    with pytest.raises(StoreUnavailable, match="full"):
        await store.progress(job.id, 1, large)
    assert len(await store.events(job.id, 0)) == 1
    assert await store.progress(job.id, 1, large[:1])  # there is room for this one
    await store.close()
    monkeypatch.setattr(SqliteDatabase, "_connect", connect)
    store = SqliteStore(path)
    assert await store.progress(job.id, 1, large)
    assert len(await store.events(job.id, 0)) == 1002
    await store.close()


async def test_a_store_that_others_lock_is_unavailable_and_blocks_neither_reads_nor_the_loop(path: Path) -> None:
    store = SqliteStore(path, busy_s=0.2)
    await store.open()
    job = await store.create(new_job(), max_queued=9)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(store.take("runner", job.id))
    assert await store.get(job.id) == job
    with pytest.raises(StoreUnavailable, match="locked"):
        await waiting
    other.execute("ROLLBACK")
    other.close()
    assert await store.take("runner", job.id)
    await store.close()


async def test_a_process_that_leaves_takes_the_log_from_nobody(path: Path) -> None:
    """The last process deletes the log; any other one that did would split the database in two."""
    store = SqliteStore(path)
    await store.open()
    job = await store.create(new_job(), max_queued=9)
    assert await store.get(job.id) == job  # by a second connection
    log = path.with_name(f"{path.name}-wal").stat().st_ino
    leave = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT count(*) FROM jobs').fetchall(); c.close()"
    )
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", leave, str(path)], check=True)
    assert path.with_name(f"{path.name}-wal").stat().st_ino == log
    await store.close()
