"""The tables of the embedded store: what the triggers count, and how much is kept of each job."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serve.jobs.store import sqlite_rows
from serve.jobs.store.encoding import encode, encode_event
from serve.jobs.store.job_store import PACE_JOBS, Kept
from serve.jobs.store.limits import KeptFull, Limits, NoRoom, QueueFull, ServiceFull, StorageFull
from serve.jobs.store.record import Delivery, Job, Progress
from serve.jobs.store.sqlite_rows import SCHEMA, Row, check_room, find, pace_of, served_callers, waiting_jobs
from serve.jobs.store.sqlite_store import SqliteStore
from serve.jobs.store.turns import Waiting
from tests.unit.serve.jobs.samples import NOW, RESULT, new_job


@pytest.fixture
def tables() -> Iterator[sqlite3.Connection]:
    """The tables of a store without jobs, in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in SCHEMA:
        connection.execute(statement)
    yield connection
    connection.close()


def insert(tables: sqlite3.Connection, **fields: object) -> Row:
    """Add a job as ``SqliteStore.create`` does, and return its row."""
    job = new_job(**fields)
    tables.execute(
        "INSERT INTO jobs (id, caller, slot, state, owner, attempt, beat, ended, expires_at, last_event, kept, record)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)",
        (
            job.id, job.caller, job.slot, job.state, job.owner, job.attempt, job.beat, job.ended, job.expires_at,
            job.kept_bytes, encode(job),
        ),
    )  # fmt: skip
    row = again(tables, job)
    tables.execute("INSERT INTO events VALUES (?, 1, ?)", (row.number, encode_event(job)))
    return row


def again(tables: sqlite3.Connection, job: Job) -> Row:
    """Return the row of a job as it is now."""
    row = find(tables, job.id)
    assert row is not None
    return row


def write(tables: sqlite3.Connection, row: Row, job: Job, events: int = 0) -> Row:
    """Replace the job of a row, with so many events."""
    row.write(tables, job, events=[job] * events)
    return again(tables, job)


def usage(tables: sqlite3.Connection) -> dict[str, int]:
    return dict(tables.execute("SELECT caller, bytes FROM usage").fetchall())


def test_a_job_comes_back_with_the_beat_that_stands_beside_its_record(tables: sqlite3.Connection) -> None:
    row = insert(tables, webhook=Delivery(url="https://example.org", id="w"), details={"prompt": "\ud800"})
    assert (row.number, row.last_event) == (1, 1)
    job = replace(row.job, beat=7, attempt=1, owner="one", progress=Progress(stage="denoising"))
    assert write(tables, row, job).job == job
    tables.execute("UPDATE jobs SET beat = 8")
    assert again(tables, job).job == replace(job, beat=8)
    assert find(tables, "0" * 32) is None


def test_the_numbers_of_events_go_on_from_the_last_one_and_the_oldest_go(
    tables: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_rows, "MAX_EVENTS", 5)
    row, other = insert(tables), insert(tables)
    row = write(tables, row, row.job, 3)
    assert row.last_event == 4
    row = write(tables, row, row.job, 3)
    row = write(tables, row, row.job)
    assert row.last_event == 7
    found = tables.execute("SELECT id FROM events WHERE number = ? ORDER BY id", (row.number,)).fetchall()
    assert [number for (number,) in found] == [3, 4, 5, 6, 7]
    assert tables.execute("SELECT id FROM events WHERE number = ?", (other.number,)).fetchall() == [(1,)]


def test_the_bytes_of_each_caller_follow_every_change_of_a_job_whoever_makes_it(tables: sqlite3.Connection) -> None:
    first, second = insert(tables, request_bytes=100), insert(tables, request_bytes=7, caller="bob")
    insert(tables)
    assert usage(tables) == {"ann": 100, "bob": 7}
    first = write(tables, first, replace(first.job, state="succeeded", result=replace(RESULT, size=3000)))
    assert usage(tables) == {"ann": 3000, "bob": 7}
    write(tables, second, replace(second.job, state="failed"))
    assert usage(tables) == {"ann": 3000}
    tables.execute("UPDATE jobs SET kept = 5 WHERE number = ?", (second.number,))  # as another release would
    assert usage(tables) == {"ann": 3000, "bob": 5}
    tables.execute("DELETE FROM jobs WHERE number = ?", (first.number,))
    assert usage(tables) == {"bob": 5}


def test_the_pace_is_the_mean_of_the_latest_jobs_of_a_slot_and_no_more_are_kept(tables: sqlite3.Connection) -> None:
    def took(seconds: float, slot: str = "wan26") -> None:
        row = insert(tables, slot=slot, state="running", started_at=NOW)
        write(tables, row, replace(row.job, state="succeeded", finished_at=NOW + seconds))

    assert pace_of(tables, "wan26") is None
    took(3, slot="film-swap")
    for seconds in (1000, 1000, *range(1, PACE_JOBS + 1)):
        took(seconds)
    assert pace_of(tables, "wan26") == sum(range(1, PACE_JOBS + 1)) / PACE_JOBS
    assert pace_of(tables, "film-swap") == 3
    assert tables.execute("SELECT count(*) FROM taken").fetchone() == (PACE_JOBS + 1,)


def test_only_jobs_that_have_not_ended_wait_or_run(tables: sqlite3.Connection) -> None:
    queued, running = insert(tables, owner="one"), insert(tables, state="starting", owner="two", caller="bob")
    insert(tables, state="failed")
    insert(tables, slot="film-swap")
    assert waiting_jobs(tables, "wan26") == [
        (Waiting(id=queued.job.id, caller="ann", slot="wan26", number=1, running=False), "one"),
        (Waiting(id=running.job.id, caller="bob", slot="wan26", number=2, running=True), "two"),
    ]
    tables.executemany("INSERT INTO served VALUES (?, ?)", [("wan26", "ann"), ("wan26", "bob"), ("film-swap", "cy")])
    assert served_callers(tables, "wan26") == {"ann", "bob"}
    assert served_callers(tables, "image-swap") == frozenset()


@pytest.mark.parametrize(
    ("limits", "max_queued", "error", "values"),
    [
        (Limits(), 2, QueueFull, (2,)),
        (Limits(max_kept_of_caller=399), 3, KeptFull, (300, 399, NOW + 50)),
        (Limits(max_queued=3), 3, ServiceFull, (3,)),
        (Limits(max_kept=499), 3, StorageFull, ("the files of all jobs take as much space as they may",)),
        # What is the caller's own doing is told before what others have done.
        (Limits(max_kept_of_caller=1, max_queued=1, max_kept=1), 2, QueueFull, (2,)),
        (Limits(max_kept_of_caller=1, max_queued=1, max_kept=1), 3, KeptFull, (300, 1, NOW + 50)),
        (Limits(max_queued=1, max_kept=1), 3, ServiceFull, (3,)),
        (Limits(max_kept_of_caller=400, max_queued=4, max_kept=500), 3, None, ()),
    ],
)
def test_there_is_room_up_to_each_limit(
    tables: sqlite3.Connection, limits: Limits, max_queued: int, error: type[NoRoom] | None, values: tuple[object, ...]
) -> None:
    """Two jobs of the caller wait, two have ended and keep 100 bytes each, and another's waits."""
    insert(tables, request_bytes=100)
    insert(tables)
    for expires_at in (NOW + 70, NOW + 50):
        insert(tables, state="succeeded", result=replace(RESULT, size=100), expires_at=expires_at)
    insert(tables, state="failed", expires_at=NOW + 10)
    insert(tables, caller="bob", request_bytes=100)
    job = new_job(request_bytes=100)
    if error is None:
        check_room(tables, job, max_queued=max_queued, limits=limits)
        return
    with pytest.raises(error) as refused:
        check_room(tables, job, max_queued=max_queued, limits=limits)
    assert refused.value.args == values


def test_a_job_that_keeps_nothing_needs_no_space(tables: sqlite3.Connection) -> None:
    insert(tables, request_bytes=100)
    check_room(tables, new_job(), max_queued=9, limits=Limits(max_kept_of_caller=1, max_kept=1))


async def keep(store: SqliteStore, size: int, job: Job) -> None:
    """End a job with a stored result of ``size`` bytes."""
    assert await store.take("runner", job.id)
    assert await store.finish(job.id, 1, state="succeeded", at=NOW, expires_at=NOW + 50, result=replace(RESULT, size=size))


async def test_a_file_of_the_previous_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "jobs.sqlite3"
    store = SqliteStore(path)
    await store.open()
    await keep(store, 3000, await store.create(new_job(request_bytes=100), max_queued=9))
    kept_later = await store.create(new_job(request_bytes=100), max_queued=9)
    await store.close()
    connection = sqlite3.connect(path)
    with connection:
        names = connection.execute("SELECT type, name FROM sqlite_master WHERE name LIKE '%kept%' OR name = 'jobs_queued'")
        for kind, name in names.fetchall():
            connection.execute(f"DROP {kind} {name}")
        connection.execute("DROP TABLE usage")
        connection.execute("ALTER TABLE jobs DROP COLUMN kept")
        connection.execute("UPDATE schema_version SET version = 2")
    connection.close()
    for _ in range(2):  # what is up to date stays
        store = SqliteStore(path)
        await store.open()
        assert await store.kept() == Kept(3000, 3000)
        await store.close()
    store = SqliteStore(path)
    await keep(store, 20, kept_later)
    assert await store.kept() == Kept(3020, 3020)
    await store.close()
