"""Transactions of several threads and processes at one SQLite file."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serve.jobs.store import sqlite_database
from serve.jobs.store.job_store import StoreUnavailable
from serve.jobs.store.record import Progress
from serve.jobs.store.sqlite_database import SqliteDatabase
from serve.jobs.store.sqlite_store import SqliteStore
from tests.unit.serve.jobs.conftest import BUSY_MACHINE_S
from tests.unit.serve.jobs.samples import new_job

SCHEMA = ("CREATE TABLE words (word TEXT NOT NULL UNIQUE)",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a store."""
    return tmp_path / "jobs" / "jobs.sqlite3"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[SqliteDatabase]:
    """A database of words."""
    database = SqliteDatabase(path, version=1, schema=SCHEMA, busy_s=BUSY_MACHINE_S)
    await database.open()
    yield database
    await database.close()


def add(word: str, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO words VALUES (?)", (word,))


def words(connection: sqlite3.Connection) -> list[str]:
    return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY word")]


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


async def test_a_transaction_that_raises_changes_nothing_and_the_next_one_works(database: SqliteDatabase) -> None:
    def refuse(connection: sqlite3.Connection) -> None:
        add("refused", connection)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write(refuse)
    await database.write(lambda connection: add("taken", connection))
    assert await database.read(words) == ["taken"]


async def test_a_mistake_of_ours_is_not_taken_for_a_store_that_is_away(database: SqliteDatabase) -> None:
    await database.write(lambda connection: add("once", connection))
    with pytest.raises(sqlite3.IntegrityError):
        await database.write(lambda connection: add("once", connection))
    with pytest.raises(sqlite3.ProgrammingError):
        await database.read(lambda connection: connection.execute("SELECT ?"))
    assert await database.read(words) == ["once"]


async def test_all_that_one_reader_reads_is_one_state(database: SqliteDatabase) -> None:
    loop, reading, written = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def read_twice(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
        first = words(connection)
        loop.call_soon_threadsafe(reading.set)
        assert written.wait(BUSY_MACHINE_S)
        return first, words(connection)

    reader = asyncio.ensure_future(database.read(read_twice))
    await reading.wait()
    await database.write(lambda connection: add("new", connection))
    written.set()
    assert await reader == ([], [])
    assert await database.read(words) == ["new"]


async def test_a_read_leaves_nothing_behind_that_it_has_written(database: SqliteDatabase) -> None:
    await database.read(lambda connection: add("by a reader", connection))
    assert await database.read(words) == []


async def test_a_connection_is_opened_anew_after_an_error(database: SqliteDatabase, path: Path) -> None:
    broken = "the disk has an error"

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE words")
        raise sqlite3.OperationalError(broken)

    opened: list[sqlite3.Connection] = []
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=broken):
            await database.write(fail)
        opened.append(await database.write(lambda connection: connection))
    assert opened[0] is not opened[1]
    assert await database.read(words) == []


async def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    await asyncio.to_thread(path.write_bytes, b"notes" * 1000)
    database = SqliteDatabase(path, version=1, schema=SCHEMA)
    with pytest.raises(StoreUnavailable, match="The store of jobs cannot be used: file is not a database"):
        await database.open()
    await database.close()
    assert await asyncio.to_thread(path.read_bytes) == b"notes" * 1000


async def test_a_migration_is_made_whole_or_not_at_all(database: SqliteDatabase, path: Path) -> None:
    await database.write(lambda connection: add("kept", connection))
    await database.close()
    broken = {1: ("ALTER TABLE words ADD COLUMN length INTEGER",), 2: ("DROP TABLE words", "CREATE nonsense")}
    database = SqliteDatabase(path, version=3, schema=SCHEMA, migrations=broken)
    with pytest.raises(StoreUnavailable, match="nonsense"):
        await database.open()
    await database.close()
    database = SqliteDatabase(path, version=1, schema=SCHEMA)
    await database.open()
    assert await database.read(words) == ["kept"]
    with pytest.raises(StoreUnavailable, match="no such column"):
        await database.read(lambda connection: connection.execute("SELECT length FROM words").fetchall())
    await database.close()


async def test_the_log_is_copied_after_so_many_transactions_and_a_failure_of_that_is_only_logged(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    copied: list[int] = []
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_EVERY", 3)
    monkeypatch.setattr(sqlite_database, "_copy_log", lambda connection: copied.append(len(words(connection))))
    while database._commits < 9:  # creating the tables was the first one
        await database.write(lambda connection: add(str(database._commits), connection))
        await asyncio.wrap_future(database._checkpoint)
    assert copied == [2, 5, 8]

    def fail(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("the disk has an error")

    monkeypatch.setattr(sqlite_database, "_copy_log", fail)
    while database._commits < 12:
        await database.write(lambda connection: add(str(database._commits), connection))
    with pytest.raises(sqlite3.OperationalError):
        await asyncio.wrap_future(database._checkpoint)
    assert len(await database.read(words)) == 11
    await database.close()  # after what its threads do
    assert "could not be copied into it and grows: the disk has an error." in caplog.text


async def test_a_transaction_that_is_under_way_when_the_database_is_closed_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the log is to be copied after it."""
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_EVERY", 1)
    database = SqliteDatabase(path, version=1, schema=SCHEMA, busy_s=BUSY_MACHINE_S)
    await database.open()
    loop, begun, let_go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    closed: list[str] = []

    def slow(connection: sqlite3.Connection) -> str:
        add("late", connection)
        loop.call_soon_threadsafe(begun.set)
        assert let_go.wait(BUSY_MACHINE_S)
        return "made"

    for name in ("_reader", "_checkpointer"):
        thread = getattr(database, name)

        def close(name: str = name, really_close: object = thread.close) -> None:
            really_close()  # type: ignore[operator]
            closed.append(name)
            let_go.set()

        monkeypatch.setattr(thread, "close", close)
    call = asyncio.ensure_future(database.write(slow))
    await begun.wait()
    await database.close()
    assert await call == "made"
    assert closed == ["_reader", "_checkpointer"]
    database = SqliteDatabase(path, version=1, schema=SCHEMA, busy_s=BUSY_MACHINE_S)
    await database.open()
    assert await database.read(words) == ["late"]
    await database.close()


@pytest.mark.parametrize("name", ["jobs.sqlite3", "old.sqlite3"])
async def test_a_file_system_without_shared_memory_is_refused_with_the_name_of_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As SQLite finds it on a network file system: also where an earlier release left a file."""
    path = tmp_path / name
    if name == "old.sqlite3":
        sqlite3.connect(path).execute("CREATE TABLE words (word TEXT)").connection.close()
    connect = sqlite3.connect

    def connect_without_shared_memory(file: Path, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(f"file:{file}?vfs=unix-dotfile", uri=True, **options)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_without_shared_memory)
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match=r"its journal mode stays `delete`, .* in `jobs\.folder`"):
        await store.open()
    with pytest.raises(StoreUnavailable, match=r"jobs\.folder"):
        await store.get("0" * 32)
    await store.close()


async def test_every_connection_has_the_settings_that_commits_and_the_log_rely_on(
    database: SqliteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "wal_autocheckpoint", "journal_size_limit")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await database.read(settings) == await database.write(settings) == ["wal", 1, 20_000, 67_108_864]
    monkeypatch.setattr(sqlite_database, "_PRAGMAS", {"synchronous": 9})
    other = SqliteDatabase(path, version=1, schema=SCHEMA)
    with pytest.raises(StoreUnavailable, match=r"SQLite answers \(1,\) to `PRAGMA synchronous=9`"):
        await other.open()
    await other.close()


async def test_a_log_that_a_reader_keeps_from_being_copied_is_said_to_grow(
    database: SqliteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_EVERY", 4)
    monkeypatch.setattr(sqlite_database, "MAX_LOG_PAGES", 2)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM words").fetchall()
    while database._commits < 4:
        await database.write(lambda connection: add(str(database._commits), connection))
    with pytest.raises(sqlite3.OperationalError, match="still read or written by another process"):
        await asyncio.wrap_future(database._checkpoint)
    reader.execute("ROLLBACK")
    reader.close()
    while database._commits < 8:
        await database.write(lambda connection: add(str(database._commits), connection))
    await asyncio.wrap_future(database._checkpoint)
    await database.close()
    assert caplog.text.count("could not be copied into it and grows") == 1
