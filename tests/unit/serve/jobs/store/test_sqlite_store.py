"""The file of the embedded store: who may open it, and which releases read it."""

import sqlite3
import stat
from pathlib import Path

import pytest

from serve.jobs.store.job_store import StoreUnavailable
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
