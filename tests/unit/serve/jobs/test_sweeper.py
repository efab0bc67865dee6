"""The sweeper over a real store, with a clock that the tests move."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serve.job_settings import JobSettings
from serve.jobs import sweeper
from serve.jobs.open_store import open_stores
from serve.jobs.store.job_store import StoreUnavailable
from serve.jobs.store.keys import FOLDERS, preview_key, request_key, result_key
from serve.jobs.store.record import Job
from serve.jobs.sweeper import ORPHAN_AGE_S, Sweeper
from tests.unit.serve.jobs.job_builders import make_job, video

LEASE_S = 15.0


class Watched:
    """A sweeper, its store, and the jobs that it took up."""

    def __init__(self, settings: JobSettings) -> None:
        self.store, self.files = open_stores(settings, "films")
        self.taken: list[str] = []
        self.now = 1000.0
        self.sweeper = Sweeper(self.store, self.files, lease_s=LEASE_S, take_up=self._take_up, clock=lambda: self.now)

    async def _take_up(self, job: Job) -> None:
        self.taken.append(job.id)

    async def look_after(self, seconds: float) -> list[str]:
        """Let time pass, look, and return what was taken up by this look."""
        self.now += seconds
        self.taken.clear()
        await self.sweeper.look()
        return list(self.taken)

    async def add(self, **fields: object) -> Job:
        """Add a job to the store."""
        job, _ = make_job(video(), **fields)
        return await self.store.create(job, max_queued=100)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(JobSettings(folder=tmp_path / "jobs"))
    await watched.store.open()
    yield watched
    await watched.store.close()


async def test_a_job_that_nobody_takes_is_taken_up_after_a_lease(watched: Watched) -> None:
    job = await watched.add()
    assert await watched.look_after(0) == []
    assert await watched.look_after(LEASE_S - 1) == []
    assert await watched.look_after(1) == [job.id]
    assert await watched.look_after(LEASE_S - 1) == []  # whoever took it up has as long
    assert await watched.look_after(1) == [job.id]


async def test_a_job_whose_owner_lives_is_left_alone_and_one_whose_owner_died_is_not(watched: Watched) -> None:
    job = await watched.add()
    await watched.store.take("one", job.id)
    for _ in range(5):
        assert await watched.look_after(LEASE_S) == []
        assert job.id in await watched.store.beat("one", {job.id: 1})
    assert await watched.look_after(LEASE_S) == []
    assert await watched.look_after(LEASE_S) == [job.id]


async def test_a_job_that_has_ended_is_of_no_interest(watched: Watched) -> None:
    job = await watched.add()
    await watched.store.take("one", job.id)
    await watched.look_after(0)
    await watched.store.finish(job.id, 1, state="failed", at=time.time(), expires_at=time.time() + 60)
    assert await watched.look_after(2 * LEASE_S) == []


async def test_every_owner_gets_a_whole_lease_after_the_store_was_away(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await watched.add()
    await watched.store.take("one", job.id)
    await watched.look_after(0)

    async def away() -> list[Job]:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(watched.store, "active", away)
        assert await watched.look_after(10 * LEASE_S) == []
    assert await watched.look_after(LEASE_S) == []
    assert await watched.look_after(LEASE_S - 1) == []
    assert await watched.look_after(1) == [job.id]


async def test_expired_jobs_go_with_their_files(watched: Watched) -> None:
    job, kept = await watched.add(), await watched.add()
    now = time.time()
    for each, expires_at in ((job, now - 1), (kept, now + 60)):
        await watched.store.take("one", each.id)
        await watched.store.finish(each.id, 1, state="succeeded", at=now, expires_at=expires_at)
        for key in (request_key(each.id), result_key(each.id, 1), preview_key(each.id, 1)):
            await watched.files.put(key, b"data")
    await watched.sweeper.delete_expired(now)
    assert await watched.store.get(job.id) is None
    assert await watched.store.was_deleted(job.id, "ada")
    assert await watched.store.get(kept.id) is not None
    left = [key for folder in FOLDERS for key, _ in await watched.files.list(folder)]
    assert len(left) == 3
    assert all(kept.id in key for key in left)


async def test_old_files_without_a_job_are_deleted(watched: Watched, tmp_path: Path) -> None:
    job = await watched.add()
    orphan, young = "0" * 32, "1" * 32
    for each in (job.id, orphan, young):
        await watched.files.put(request_key(each), b"data")
    now = time.time()
    for path in (tmp_path / "jobs" / "films" / "files" / "requests").iterdir():
        age_s = 0 if path.name == young else ORPHAN_AGE_S + 1
        os.utime(path, (now - age_s, now - age_s))
    await watched.sweeper.delete_orphans(now)
    assert {key for key, _ in await watched.files.list("requests")} == {request_key(job.id), request_key(young)}


FOREIGN = (
    "requests/.DS_Store", "requests/a b", "requests/notes.txt", "results/x/.nfs0000", "results/" + "0" * 32 + "/.nfs0000",
    "results/" + "0" * 32 + "/1 (copy)", "previews/\N{SNOWMAN}", "previews/" + "0" * 31 + "/1", "results/" + "0" * 32 + "/1/2",
)  # fmt: skip


async def test_files_that_others_have_put_there_stay_and_keep_nothing_from_being_deleted(
    watched: Watched, tmp_path: Path
) -> None:
    orphans = [request_key("1" * 32), result_key("1" * 32, 1), preview_key("2" * 32, 3)]
    folder = tmp_path / "jobs" / "films" / "files"
    for key in orphans:
        await watched.files.put(key, b"data")
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"data")
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    await watched.sweeper.delete_orphans(time.time())
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == set(FOREIGN)


async def test_an_error_in_what_is_deleted_is_logged_and_the_rest_goes_on(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sweeper, "CLEAN_PERIOD_S", 0)
    rounds = 0
    done = asyncio.Event()

    async def fail(now: float) -> None:
        raise (ValueError("a strange record"), StoreUnavailable("away"))[rounds % 2]

    async def count(now: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 4:
            done.set()

    monkeypatch.setattr(watched.sweeper, "delete_expired", fail)
    monkeypatch.setattr(watched.sweeper, "delete_orphans", count)
    with caplog.at_level(logging.WARNING, "ray.serve"):
        loop = asyncio.ensure_future(watched.sweeper.clean())
        async with asyncio.timeout(60):
            await done.wait()
        loop.cancel()
        await asyncio.wait({loop})
    assert loop.cancelled()
    assert "a strange record" in caplog.text
    assert "the store of jobs is unavailable" in caplog.text
