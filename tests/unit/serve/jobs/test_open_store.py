"""The stores that the settings name, and what applications share of them: nothing."""

import stat
from pathlib import Path
from typing import Any

import pytest

from serve.job_settings import JobSettings
from serve.jobs.files.file_store import FileStore
from serve.jobs.open_store import open_stores
from serve.jobs.store.job_store import JobStore, StoreUnavailable
from serve.jobs.store.keys import request_key
from serve.jobs.store.redis_store import RedisStore
from serve.jobs.store.sqlite_store import SqliteStore
from serve.jobs.sweeper import ORPHAN_AGE_S, Sweeper
from tests.unit.serve.jobs.redis_server import RedisServer
from tests.unit.serve.jobs.samples import NOW, new_job


async def test_the_settings_name_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store, files = open_stores(JobSettings(folder=Path("~/my jobs")), "films")
    assert isinstance(store, SqliteStore)
    await store.open()
    await files.put("requests/a", b"x")
    folder = tmp_path / "my jobs/films"
    assert (folder / "files/requests/a").read_bytes() == b"x"
    assert (folder / "jobs.sqlite3").exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await store.close()
    with pytest.raises(StoreUnavailable, match="nosuch"):
        open_stores(JobSettings(folder=tmp_path, files="nosuch://x"), "films")


async def test_the_password_of_redis_is_read_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    settings = JobSettings(store="redis://127.0.0.1:1", store_password_file=secret, files="memory://x")
    with pytest.raises(StoreUnavailable, match="password"):
        open_stores(settings, "films")
    secret.write_text("s3cret\n")
    store, _ = open_stores(settings, "films")
    assert isinstance(store, RedisStore)
    assert store._client.connection_pool.connection_kwargs["password"] == "s3cret"
    await store.close()


@pytest.fixture(params=["embedded", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> JobSettings:
    """Settings that several applications have in common."""
    shared: dict[str, Any] = {"folder": tmp_path / "jobs"}
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        shared |= {"store": server.url, "files": f"memory://{tmp_path.name}"}
    return JobSettings(**shared)


@pytest.mark.parametrize("other", ["films/2", "..", "Films", "films%2F2", "films:job", ""])
async def test_applications_that_share_a_store_do_not_see_each_others_jobs(settings: JobSettings, other: str) -> None:
    async def opened(application: str) -> tuple[JobStore, FileStore]:
        store, files = open_stores(settings, application)
        await store.open()
        return store, files

    mine, my_files = await opened("films")
    theirs, their_files = await opened(other)
    job = await mine.create(new_job(idempotency_key="k", fingerprint="f"), max_queued=9)
    await my_files.put(request_key(job.id), b"mine")
    assert await theirs.get(job.id) is None
    assert await theirs.active() == []
    assert (await theirs.queue(job.slot)).waiting == ()
    assert await theirs.take("their Runner", job.id) is None
    assert (await theirs.list(job.caller, state=None, limit=9, cursor=None)).jobs == ()
    twin = await theirs.create(new_job(idempotency_key="k", fingerprint="f"), max_queued=9)
    assert twin.id != job.id
    assert await their_files.get(request_key(job.id)) is None

    async def take_up(job: object) -> None:
        pytest.fail("nothing is to be taken up")

    # A file without a job is deleted by the sweeper of its own application only.
    sweeper = Sweeper(theirs, their_files, lease_s=15, take_up=take_up)
    await sweeper.delete_orphans(NOW * 1e6 + ORPHAN_AGE_S)
    assert await my_files.get(request_key(job.id)) == b"mine"
    # The application itself finds its jobs again.
    again, _ = await opened("films")
    assert await again.get(job.id) == job
    for store in (mine, theirs, again):
        await store.close()
