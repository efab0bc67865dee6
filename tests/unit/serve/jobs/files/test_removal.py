"""Which files of a job are removed, and when."""

from typing import Any

import pytest

from serve.jobs.files.removal import remove_files, remove_leftovers
from serve.jobs.store.keys import preview_key, request_key, result_key
from serve.jobs.store.record import Job, Progress
from tests.unit.serve.jobs.fake_jobs import FakeFiles, make_job, stored


def everything_of(job_id: str, *, attempts: int) -> set[str]:
    """Return the names of all files that a job can have after so many attempts."""
    each = [make_key(job_id, attempt) for attempt in range(1, attempts + 1) for make_key in (preview_key, result_key)]
    return {request_key(job_id), *each}


def filled(*keys: str) -> FakeFiles:
    return FakeFiles(content=dict.fromkeys(keys, b"x"))


async def test_all_files_of_a_job_go_and_those_of_no_other() -> None:
    job, other = make_job(), make_job()
    theirs = everything_of(other.id, attempts=2)
    files = filled(*everything_of(job.id, attempts=3), *theirs)
    await remove_files(files, job.id)
    assert set(files.content) == theirs
    await remove_files(files, job.id)
    assert set(files.content) == theirs


def ended(**fields: Any) -> Job:
    """Return a job that has ended in its third attempt, and of which a preview was stored."""
    return make_job(**{"state": "failed", "attempt": 3, "progress": Progress(preview=True), **fields})


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
async def test_an_ended_job_keeps_its_result_and_nothing_else(state: str) -> None:
    job = ended(id="a" * 32, state=state)
    if state == "succeeded":
        job = ended(id="a" * 32, state=state, result=stored(b"x", job.id, key=result_key(job.id, 3)))
    files = filled(*everything_of(job.id, attempts=3), "results/another/3")
    await remove_leftovers(files, job)
    assert set(files.content) == {"results/another/3"} | ({result_key(job.id, 3)} if state == "succeeded" else set())


class Counted(FakeFiles):
    """Files that count their deletions, each of which costs a call to a bucket."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[str] = []

    async def delete(self, key: str) -> None:
        self.deleted.append(key)


@pytest.mark.parametrize(
    ("job", "deleted"),
    [
        (ended(id="a" * 32, attempt=0, state="cancelled", progress=Progress()), [request_key("a" * 32)]),
        (
            ended(id="a" * 32, attempt=1, state="succeeded", progress=Progress(), result=stored(b"x", "a" * 32)),
            [request_key("a" * 32)],
        ),
        (
            ended(id="a" * 32, attempt=1, progress=Progress()),
            [request_key("a" * 32), result_key("a" * 32, 1)],
        ),
    ],
    ids=["before its first attempt", "a result without a preview", "neither"],
)
async def test_only_files_that_can_be_there_are_asked_for(job: Job, deleted: list[str]) -> None:
    files = Counted()
    await remove_leftovers(files, job)
    assert files.deleted == deleted
