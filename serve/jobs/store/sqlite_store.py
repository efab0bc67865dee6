"""The store of jobs in a SQLite file, for a service on one machine."""

import json
import re
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from sqlite3 import Connection

from serve.jobs.store import transitions, turns
from serve.jobs.store.encoding import decode, decode_events, decode_lease, encode, encode_event
from serve.jobs.store.job_store import Event, Kept, KeyReused, Page, Queue, Spent
from serve.jobs.store.limits import NO_LIMITS, Limits
from serve.jobs.store.record import Job, Lease, Progress, State, StoredResult
from serve.jobs.store.sqlite_database import BUSY_S, SqliteDatabase
from serve.jobs.store.sqlite_rows import (
    MIGRATIONS,
    SCHEMA,
    SCHEMA_VERSION,
    check_room,
    find,
    pace_of,
    served_callers,
    waiting_jobs,
)
from serve.jobs.store.turns import Waiting

MAX_DELETED = 100_000
"""The deleted jobs that are remembered, for at most ``REMEMBERED_S`` seconds."""
REMEMBERED_S = 7 * 86400
_CURSOR = re.compile(r"[0-9]{1,18}", re.ASCII)


class SqliteStore:
    """A JobStore in the file ``path``, whose folder must be ours alone.

    Several processes of one machine may use it at once, but not over a network file system.
    """

    def __init__(self, path: Path, *, busy_s: float = BUSY_S) -> None:
        self._database = SqliteDatabase(path, version=SCHEMA_VERSION, schema=SCHEMA, migrations=MIGRATIONS, busy_s=busy_s)

    async def open(self) -> None:
        """Create the file and what is missing in it."""
        await self._database.open()

    async def close(self) -> None:
        """Close the file."""
        await self._database.close()

    async def create(self, job: Job, *, max_queued: int, limits: Limits = NO_LIMITS) -> Job:
        """Add ``job``, unless it or another one under its idempotency key is there already."""

        def work(connection: Connection) -> Job:
            if earlier := _earlier(connection, job):
                return earlier
            check_room(connection, job, max_queued=max_queued, limits=limits)
            if job.idempotency_key is not None:  # one that has failed or has expired has it no more
                connection.execute(
                    "UPDATE jobs SET idempotency_key = NULL WHERE caller = ? AND idempotency_key = ?",
                    (job.caller, job.idempotency_key),
                )
            cursor = connection.execute(
                "INSERT INTO jobs (id, caller, slot, state, owner, attempt, beat, ended, idempotency_key, expires_at, last_event,"
                " kept, record)"
                " VALUES (:id, :caller, :slot, :state, :owner, :attempt, :beat, 0, :idempotency_key, :expires_at, 1, :kept, :record)",
                vars(job) | {"kept": job.kept_bytes, "record": encode(job)},
            )
            connection.execute("INSERT INTO events VALUES (?, 1, ?)", (cursor.lastrowid, encode_event(job)))
            return job

        return await self._database.write(work)

    async def look_up(self, job: Job, *, max_queued: int, limits: Limits = NO_LIMITS) -> Job | None:
        """Return the job that ``create`` would return instead of ``job``; raise what it would."""

        def work(connection: Connection) -> Job | None:
            earlier = _earlier(connection, job)
            if earlier is None:
                check_room(connection, job, max_queued=max_queued, limits=limits)
            return earlier

        return await self._database.read(work)

    async def kept(self) -> Kept:
        """Return how much all jobs keep."""
        query = "SELECT total(bytes), max(bytes) FROM usage"
        total, most = await self._database.read(lambda connection: connection.execute(query).fetchone())
        return Kept(int(total), most or 0)

    async def get(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        row = await self._database.read(lambda connection: find(connection, job_id))
        return None if row is None else row.job

    async def list(self, caller: str, *, state: State | None, limit: int, cursor: str | None) -> Page:
        """Return the caller's jobs, newest first."""
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise ValueError("The cursor is not one that a page gave.")
        before = 2**62 if cursor is None else int(cursor)

        def work(connection: Connection) -> Page:
            of_state, values = ("", ()) if state is None else (" AND state = ?", (state,))
            rows = connection.execute(
                f"SELECT number, record, beat FROM jobs WHERE caller = ?{of_state} AND number < ? ORDER BY number DESC LIMIT ?",
                (caller, *values, before, limit + 1),
            ).fetchall()
            jobs = tuple(decode(record, beat=beat) for _, record, beat in rows[:limit])
            return Page(jobs, str(rows[limit - 1][0]) if len(rows) > limit else None)

        return await self._database.read(work)

    async def cursor_after(self, job_id: str, caller: str) -> str | None:
        """Return the cursor of the list that begins after a job."""

        def work(connection: Connection) -> str | None:
            row = connection.execute("SELECT number FROM jobs WHERE id = ? AND caller = ?", (job_id, caller)).fetchone()
            return None if row is None else str(row[0])

        return await self._database.read(work)

    async def active(self) -> Sequence[Job]:
        """Return all jobs that have not ended."""
        return await self._select("ended = 0 ORDER BY number")

    async def queue(self, slot: str) -> Queue:
        """Return the jobs of ``slot`` that have not ended."""

        def work(connection: Connection) -> tuple[list[Waiting], frozenset[str], float | None]:
            waiting = [job for job, _ in waiting_jobs(connection, slot)]
            return waiting, served_callers(connection, slot), pace_of(connection, slot)

        jobs, served, pace_s = await self._database.read(work)
        waiting = tuple(turns.queue(jobs, served=served))
        return Queue(waiting, tuple(job.id for job in jobs if job.running), pace_s)

    async def take(self, owner: str, job_id: str, *, known_beat: int | None = None) -> Job | None:
        """Give ``owner`` the lease of a job."""

        def work(connection: Connection) -> Job | None:
            row = find(connection, job_id)
            if row is None or (job := transitions.taken(row.job, owner, known_beat)) is None:
                return None
            # The first attempt changes nothing that a listener sees.
            row.write(connection, job, events=[job] if job.attempt > 1 else [])
            return job

        return await self._database.write(work)

    async def start(self, owner: str, *, slots: dict[str, int], max_running: int) -> Sequence[Job]:
        """Start the queued jobs of ``owner`` whose turn it is."""

        def work(connection: Connection) -> list[Job]:
            jobs: list[Job] = []
            for slot, limit in slots.items():
                waiting = waiting_jobs(connection, slot)
                owners = {job.id: its_owner for job, its_owner in waiting}
                served = served_callers(connection, slot)
                # One that nobody has taken yet would hold up those who could start.
                ready = [job for job, its_owner in waiting if job.running or its_owner]
                turn = turns.startable(ready, limit=limit, max_running=max_running, served=served)
                started = [job for job in turn if owners[job.id] == owner]
                for waiting_job in started:
                    if row := find(connection, waiting_job.id):
                        job = transitions.started(row.job, time.time())
                        row.write(connection, job, events=[job])
                        jobs.append(job)
                after = turns.served_after(served, started)
                connection.executemany(
                    "DELETE FROM served WHERE slot = ? AND caller = ?", [(slot, name) for name in served - after]
                )
                connection.executemany("INSERT INTO served VALUES (?, ?)", [(slot, name) for name in after - served])
            return jobs

        return await self._database.write(work)

    async def beat(self, owner: str, attempts: dict[str, int]) -> dict[str, Lease]:
        """Show a sign of life for jobs, and return the leases that ``owner`` still holds."""

        def work(connection: Connection) -> dict[str, Lease]:
            rows = connection.execute(
                "UPDATE jobs SET beat = beat + 1 FROM json_each(?) AS held"
                " WHERE jobs.id = held.key AND owner = ? AND attempt = held.value AND ended = 0 RETURNING jobs.id, record",
                (json.dumps(attempts), owner),
            ).fetchall()
            return {job_id: decode_lease(record) for job_id, record in rows}

        return await self._database.write(work) if attempts else {}

    async def progress(self, job_id: str, attempt: int, steps: Sequence[Progress]) -> bool:
        """Record steps of a job, each as an event."""

        def work(connection: Connection) -> bool:
            row = find(connection, job_id)
            if row is None or (jobs := transitions.progressed(row.job, attempt, steps)) is None:
                return False
            if jobs:
                row.write(connection, jobs[-1], events=jobs)
            return True

        return await self._database.write(work)

    async def finish(
        self,
        job_id: str,
        attempt: int,
        *,
        state: State,
        at: float,
        expires_at: float,
        result: StoredResult | None = None,
        problem: dict[str, object] | None = None,
    ) -> Job | None:
        """End a job."""

        def work(connection: Connection) -> Job | None:
            row = find(connection, job_id)
            if row is None:
                return None
            job = transitions.finished(
                row.job, attempt, state=state, at=at, expires_at=expires_at, result=result, problem=problem
            )
            if job is not None:
                row.write(connection, job, events=[job])
            return job

        return await self._database.write(work)

    async def request_cancel(self, job_id: str, *, at: float, expires_at: float) -> Job | None:
        """Cancel a job, or ask its owner to."""

        def work(connection: Connection) -> Job | None:
            row = find(connection, job_id)
            if row is None:
                return None
            job = transitions.cancelled(row.job, at=at, expires_at=expires_at)
            if job != row.job:
                row.write(connection, job, events=[job] if job.ended else [])
            return job

        return await self._database.write(work)

    async def update(self, job: Job, *, expected: Job) -> bool:
        """Replace an ended job."""

        def work(connection: Connection) -> bool:
            row = find(connection, job.id)
            if row is None or transitions.replaced(row.job, job, expected) is None:
                return False
            row.write(connection, job, events=[])
            return True

        return await self._database.write(work)

    async def delete(self, job_id: str) -> Job | None:
        """Delete an ended job with its events."""

        def work(connection: Connection) -> Job | None:
            row = find(connection, job_id)
            if row is None or not row.job.ended:
                return None
            connection.execute("DELETE FROM jobs WHERE number = ?", (row.number,))
            connection.execute("DELETE FROM events WHERE number = ?", (row.number,))
            now = time.time()
            cursor = connection.execute(
                "INSERT OR REPLACE INTO deleted (id, caller, at) VALUES (?, ?, ?)", (job_id, row.job.caller, now)
            )
            last = cursor.lastrowid or 0
            connection.execute("DELETE FROM deleted WHERE number <= ?", (last - MAX_DELETED,))
            # Few at a time: the oldest come first.
            connection.execute(
                "DELETE FROM deleted WHERE number IN (SELECT number FROM deleted ORDER BY number LIMIT 10) AND at < ?",
                (now - REMEMBERED_S,),
            )
            return row.job

        return await self._database.write(work)

    async def was_deleted(self, job_id: str, caller: str) -> bool:
        """Return whether the caller had a job of this id."""
        query = "SELECT 1 FROM deleted WHERE id = ? AND caller = ?"
        return await self._database.read(lambda connection: connection.execute(query, (job_id, caller)).fetchone() is not None)

    async def expired(self, now: float, limit: int) -> Sequence[Job]:
        """Return ended jobs that are to be deleted."""
        return await self._select("ended = 1 AND expires_at <= ? ORDER BY expires_at LIMIT ?", now, limit)

    async def due_webhooks(self, now: float, limit: int, *, after: Job | None = None) -> Sequence[Job]:
        """Return ended jobs whose webhook is to be sent."""
        condition, values = "webhook_due_at <= ?", list[object]([now])
        if after is not None:
            # The values are none, and so are the rows, if the job is gone or has no due webhook.
            condition += " AND (webhook_due_at, number) > (SELECT webhook_due_at, number FROM jobs WHERE id = ?)"
            values.append(after.id)
        return await self._select(f"{condition} ORDER BY webhook_due_at, number LIMIT ?", *values, limit)

    async def events(self, job_id: str, after: int) -> Sequence[Event]:
        """Return the events of a job with ids above ``after``."""

        def work(connection: Connection) -> tuple[str, list[tuple[int, str]]] | None:
            row = connection.execute("SELECT number, last_event, record FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None or row[1] <= after:
                return None
            return row[2], connection.execute(
                "SELECT id, record FROM events WHERE number = ? AND id > ? ORDER BY id", (row[0], after)
            ).fetchall()

        found = await self._database.read(work)
        if found is None:
            return []
        record, rows = found
        return [Event(row[0], job) for row, job in zip(rows, decode_events(record, [row[1] for row in rows]), strict=True)]

    async def spend(self, caller: str, *, per_minute: int, now: float) -> Spent:
        """Count one request of the caller."""
        minute, second = divmod(now, 60)

        def work(connection: Connection) -> int | None:
            connection.execute("DELETE FROM spent WHERE minute < ?", (minute - 1,))
            row = connection.execute(
                "INSERT INTO spent VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1 WHERE requests < ?"
                " RETURNING requests",
                (int(minute), caller, per_minute),
            ).fetchone()
            return row and int(row[0])

        spent = await self._database.write(work) if per_minute > 0 else None
        return Spent(allowed=spent is not None, remaining=per_minute - spent if spent else 0, reset_s=60 - second)

    async def known(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the ids are those of jobs in the store."""
        query = "SELECT 1 FROM jobs WHERE id = ?"

        def work(connection: Connection) -> frozenset[str]:
            return frozenset(job_id for job_id in job_ids if connection.execute(query, (job_id,)).fetchone())

        return await self._database.read(work)

    async def _select(self, condition: str, *values: object) -> Sequence[Job]:
        query = f"SELECT record, beat FROM jobs WHERE {condition}"
        rows = await self._database.read(lambda connection: connection.execute(query, values).fetchall())
        return [decode(record, beat=beat) for record, beat in rows]


def _earlier(connection: Connection, job: Job) -> Job | None:
    """Return ``job`` if it is there, or the job that its key stands for; else None.

    Raises KeyReused if that is another request.
    """
    if there := find(connection, job.id):
        return there.job
    if job.idempotency_key is None:
        return None
    row = connection.execute(
        "SELECT record, beat FROM jobs WHERE caller = ? AND idempotency_key = ?", (job.caller, job.idempotency_key)
    ).fetchone()
    if row is None:
        return None
    same = decode(row[0], beat=row[1])
    if not transitions.replays(same, job.created_at):
        return None
    if differs := transitions.differences(same, job):
        raise KeyReused(job.idempotency_key, differs)
    return same
