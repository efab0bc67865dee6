"""A SQLite file that several processes use at once, without blocking the event loop."""

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from serve.jobs.store.job_store import StoreUnavailable
from serve.jobs.store.private_folder import make_private

T = TypeVar("T")
logger = logging.getLogger(__name__)

BUSY_S = 5.0
"""How long a transaction waits for those of other processes."""
CHECKPOINT_EVERY = 500
"""Transactions after which the write-ahead log is copied into the database."""
RETRY_S = 0.02
MAX_LOG_PAGES = 20_000
"""Pages of the log that are not yet copied, from which on it is said that it grows."""
_PRAGMAS = {
    "synchronous": 1,  # NORMAL
    "wal_autocheckpoint": MAX_LOG_PAGES,  # if the thread for it cannot keep up
    "journal_size_limit": 64 * 2**20,
}
"""What each connection is set to. SQLite ignores what it does not know, and so is asked again."""
_creation = threading.Lock()
"""Held while a file is created, so that no other thread has it open when it is closed."""


class SqliteDatabase:
    """One thread that writes and one that reads, each with its own connection.

    The log is copied into the database by a third thread, because that waits for the disk, and no
    request should. Commits are safe from a killed process at once, and from a power cut once the
    log is on the disk (`synchronous=NORMAL`).

    ``schema`` makes a file of ``version``, and ``migrations`` what an earlier version needs to
    become the next one.
    """

    def __init__(
        self,
        path: Path,
        *,
        version: int,
        schema: Sequence[str],
        migrations: Mapping[int, Sequence[str]] | None = None,
        busy_s: float = BUSY_S,
    ) -> None:
        self._path = path
        self._version = version
        self._schema = schema
        self._migrations = migrations or {}
        self._busy_s = busy_s
        self._writer = _Thread("jobs-write", self._connect)
        self._reader = _Thread("jobs-read", self._connect)
        self._checkpointer = _Thread("jobs-checkpoint", self._connect)
        self._commits = 0
        self._checkpoint: Future[None] = Future()
        self._checkpoint.set_result(None)

    async def open(self) -> None:
        """Create what is missing. Raises StoreUnavailable."""
        await self._run(self._writer, self._create)

    async def close(self) -> None:
        """End the threads, after what they do already."""
        await asyncio.gather(*(asyncio.to_thread(thread.close) for thread in (self._writer, self._reader)))
        await asyncio.to_thread(self._checkpointer.close)  # a transaction that is just made may still need it

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return ``work(connection)``, run in a transaction of its own that keeps others out.

        The transaction is undone if ``work`` raises an exception. Raises StoreUnavailable if the
        disk is full, or if other processes kept this one out for ``busy_s``.
        """
        return await self._run(self._writer, lambda connection: self._transaction(connection, work))

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return ``work(connection)``, all of which sees one state. Raises StoreUnavailable."""
        return await self._run(self._reader, lambda connection: _snapshot(connection, work))

    async def _run(self, thread: "_Thread", work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await asyncio.wrap_future(thread.submit(work))
        except sqlite3.DatabaseError as error:
            if isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError)):
                raise  # a mistake of ours
            raise StoreUnavailable(f"The store of jobs cannot be used: {error}.") from error

    def _transaction(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite has undone it by itself if the disk is full
                connection.execute("ROLLBACK")
            raise
        self._commits += 1
        if self._commits % CHECKPOINT_EVERY == 0 and self._checkpoint.done():
            self._checkpoint = self._checkpointer.submit(_copy_log)
            self._checkpoint.add_done_callback(_report)
        return result

    def _connect(self) -> sqlite3.Connection:
        make_private(self._path.parent)
        _create_private(self._path)
        connection = sqlite3.connect(self._path, timeout=self._busy_s, isolation_level=None, check_same_thread=False)
        deadline = time.monotonic() + self._busy_s
        while True:  # the change to WAL does not wait for other processes that open the file
            try:
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
                break
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    connection.close()
                    raise
                time.sleep(RETRY_S)
        if mode != "wal":  # SQLite has no shared memory there, and so says which mode it stays in
            connection.close()
            raise StoreUnavailable(
                f"SQLite cannot keep {self._path} there for several processes at once: its journal mode stays `{mode}`, as on "
                "network file systems. Name a folder on a local disk in `jobs.folder`, or a Redis in `jobs.store`."
            )
        for name, value in _PRAGMAS.items():
            connection.execute(f"PRAGMA {name}={value}")
            if (answer := connection.execute(f"PRAGMA {name}").fetchone()) != (value,):
                connection.close()
                raise StoreUnavailable(f"SQLite answers {answer} to `PRAGMA {name}={value}` at {self._path}.")
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        self._transaction(connection, self._create_tables)

    def _create_tables(self, connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
        row = connection.execute("SELECT version FROM schema_version").fetchone()
        if row is None:
            connection.execute("INSERT INTO schema_version VALUES (?)", (self._version,))
            for statement in self._schema:
                connection.execute(statement)
            return
        version: int = row[0]
        while version != self._version and version in self._migrations:
            for statement in self._migrations[version]:
                connection.execute(statement)
            version += 1
            connection.execute("UPDATE schema_version SET version = ?", (version,))
        if version != self._version:
            raise StoreUnavailable(
                f"{self._path} has schema version {version}, and this release reads version {self._version}. "
                "Name another folder in `jobs.folder`, or run the release that wrote it."
            )


def _create_private(path: Path) -> None:
    """Create the file, if it is not there, for this user alone; SQLite gives its log the same mode.

    A file that is there is not opened: when a process closes any descriptor of a file, POSIX drops
    all of its locks on that file, SQLite's among them. Another process that left would then take
    itself for the last one and delete the log in which this one goes on writing
    (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    """
    with _creation, suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _copy_log(connection: sqlite3.Connection) -> None:
    busy, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if busy or pages - copied >= MAX_LOG_PAGES:
        raise sqlite3.OperationalError(f"{pages - copied} pages are still read or written by another process")


def _report(checkpoint: Future[None]) -> None:
    if not checkpoint.cancelled() and (error := checkpoint.exception()):
        logger.warning("The log of the jobs' database could not be copied into it and grows: %s.", error)


def _snapshot(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


class _Thread:
    """A thread with a connection, which it opens when there is work, and again after an error."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Let the thread run ``work(connection)`` after what it was given before."""
        return self._executor.submit(self._call, work)

    def close(self) -> None:
        """End the thread, which takes as long as what it does already."""
        self._executor.shutdown(cancel_futures=True)
        self._disconnect()

    def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return work(self._connection)
        except sqlite3.Error:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
