"""The store of jobs in Redis, for a service on several machines.

Each job is a hash with its record and what is asked for often, and a stream with its events. Sets
find jobs by what they have in common. A change reads the job, decides in Python as the other store
does, and writes only if nobody else has written since (WATCH); if not, it starts again. Each write
leaves a mark of its call in the job. So a call that has lost its connection before the answer finds
out whether it was done.
"""

import re
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from statistics import fmean
from typing import Any

from serve.jobs.store import transitions, turns
from serve.jobs.store.encoding import decode, decode_events, decode_lease
from serve.jobs.store.job_store import Event, Kept, Page, Queue, Spent, StoreUnavailable
from serve.jobs.store.limits import NO_LIMITS, Limits
from serve.jobs.store.record import Job, Lease, Progress, State, StoredResult
from serve.jobs.store.redis_connection import PATIENCE_S, RedisConnection
from serve.jobs.store.redis_creation import Creation
from serve.jobs.store.redis_rows import Entry, RedisRows, remembered_as, waiting_jobs
from serve.jobs.store.redis_scripts import BEAT, CREATE, SPEND

SCHEMA_VERSION = "1"
MAX_DELETED = 100_000
"""The deleted jobs that are remembered, for at most ``REMEMBERED_S`` seconds."""
REMEMBERED_S = 7 * 86400
SPENT_S = 180
"""How long the requests of a minute are kept: longer than the clocks of replicas differ."""
BEATS = 500
"""The jobs of one script, which keeps others waiting."""
_CURSOR = re.compile(r"[0-9]{1,18}", re.ASCII)


_Decision = tuple[Job, list[Job]] | None
"""What a job becomes, and its new events; None if it stays."""


class RedisStore:
    """A JobStore in the Redis of ``url`` (redis://, rediss:// or unix://), below ``prefix``."""

    def __init__(self, url: str, *, password: str | None = None, prefix: str = "ryla:", patience_s: float = PATIENCE_S) -> None:
        self._rows = RedisRows(prefix)
        self._connection = RedisConnection(url, password=password, patience_s=patience_s)
        self._client = self._connection.client
        self._create = self._client.register_script(CREATE)
        self._beat = self._client.register_script(BEAT)
        self._spend = self._client.register_script(SPEND)

    async def open(self) -> None:
        """Connect, and see that this release can read the jobs."""
        await self._connection.open()

        async def work(_: bool) -> str | None:
            await self._client.set(self._rows.key("schema"), SCHEMA_VERSION, nx=True)
            version: str | None = await self._client.get(self._rows.key("schema"))
            return version

        version = await self._connection.run(work)
        if version != SCHEMA_VERSION:
            raise StoreUnavailable(
                f"The jobs in Redis have schema version {version}, and this release reads version {SCHEMA_VERSION}. "
                "Name another database, or run the release that wrote them."
            )

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def create(self, job: Job, *, max_queued: int, limits: Limits = NO_LIMITS) -> Job:
        """Add ``job``, unless it or another one under its idempotency key is there already."""
        return await self._ask(job, max_queued, limits, change=True) or job

    async def look_up(self, job: Job, *, max_queued: int, limits: Limits = NO_LIMITS) -> Job | None:
        """Return the job that ``create`` would return instead of ``job``; raise what it would."""
        return await self._ask(job, max_queued, limits, change=False)

    async def _ask(self, job: Job, max_queued: int, limits: Limits, *, change: bool) -> Job | None:
        """Return the job that is there instead of ``job``, or None if there is room for it.

        With ``change`` the job is added then.
        """
        creation = Creation(self._rows, job, max_queued=max_queued, limits=limits)
        arguments = creation.arguments(change=change)
        answer = await self._connection.run(lambda _: self._create(keys=creation.keys, args=arguments))
        return creation.instead(answer)

    async def kept(self) -> Kept:
        """Return how much all jobs keep."""

        async def work(_: bool) -> tuple[str | None, list[str]]:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.get(self._rows.key("kept-total"))
                pipe.hvals(self._rows.key("kept"))
                total, each = await pipe.execute()
            return total, each

        total, each = await self._connection.run(work)
        return Kept(int(total or 0), max(map(int, each), default=0))

    async def get(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        return next(iter(await self._jobs([job_id])), None)

    async def list(self, caller: str, *, state: State | None, limit: int, cursor: str | None) -> Page:
        """Return the caller's jobs, newest first."""
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise ValueError("The cursor is not one that a page gave.")
        key = self._rows.key("all", caller) if state is None else self._rows.key("in", state, caller)
        before = "+inf" if cursor is None else f"({cursor}"
        rows = await self._connection.run(
            lambda _: self._client.zrange(
                key, before, "-inf", desc=True, byscore=True, offset=0, num=limit + 1, withscores=True
            )
        )
        jobs = await self._jobs([row[0] for row in rows[:limit]])
        kept = tuple(job for job in jobs if state in (None, job.state))
        return Page(kept, str(int(rows[limit - 1][1])) if len(rows) > limit else None)

    async def cursor_after(self, job_id: str, caller: str) -> str | None:
        """Return the cursor of the list that begins after a job."""
        number = await self._connection.run(lambda _: self._client.zscore(self._rows.key("all", caller), job_id))
        return None if number is None else str(int(number))

    async def active(self) -> Sequence[Job]:
        """Return all jobs that have not ended."""
        ids = await self._connection.run(lambda _: self._client.smembers(self._rows.key("active")))
        return [job for job in await self._jobs(ids) if not job.ended]

    async def queue(self, slot: str) -> Queue:
        """Return the jobs of ``slot`` that have not ended."""

        async def work(_: bool) -> tuple[dict[str, str], set[str], list[str]]:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.hgetall(self._rows.key("turns", slot))
                pipe.smembers(self._rows.key("served", slot))
                pipe.lrange(self._rows.key("taken", slot), 0, -1)
                rows, served, taken = await pipe.execute()
            return rows, served, taken

        rows, served, taken = await self._connection.run(work)
        jobs = [job for job, _ in waiting_jobs(slot, rows)]
        waiting = tuple(turns.queue(jobs, served=served))
        pace_s = fmean(map(float, taken)) if taken else None
        return Queue(waiting, tuple(job.id for job in jobs if job.running), pace_s)

    async def take(self, owner: str, job_id: str, *, known_beat: int | None = None) -> Job | None:
        """Give ``owner`` the lease of a job."""

        def decide(job: Job) -> _Decision:
            taken = transitions.taken(job, owner, known_beat)
            # The first attempt changes nothing that a listener sees.
            return None if taken is None else (taken, [taken] if taken.attempt > 1 else [])

        return await self._change(job_id, decide)

    async def start(self, owner: str, *, slots: dict[str, int], max_running: int) -> Sequence[Job]:
        """Start the queued jobs of ``owner`` whose turn it is."""
        mark = secrets.token_hex(8)

        async def work(again: bool) -> list[Job]:
            started: list[Job] = []
            async with self._client.pipeline(transaction=True) as pipe:
                await pipe.watch(*(self._rows.key(kind, slot) for slot in slots for kind in ("turns", "served")))
                changes: list[tuple[Entry, Job]] = []
                served_changes: list[tuple[str, set[str], frozenset[str]]] = []
                for slot, limit in slots.items():
                    waiting = waiting_jobs(slot, await pipe.hgetall(self._rows.key("turns", slot)))
                    served: set[str] = await pipe.smembers(self._rows.key("served", slot))
                    owners = {job.id: its_owner for job, its_owner in waiting}
                    if again:
                        ours = [job.id for job, its_owner in waiting if job.running and its_owner == owner]
                        started += [entry.job for entry in await self._rows.entries(pipe, ours) if entry.write == mark]
                    # One that nobody has taken yet would hold up those who could start.
                    ready = [job for job, its_owner in waiting if job.running or its_owner]
                    turn = turns.startable(ready, limit=limit, max_running=max_running, served=served)
                    turn = [job for job in turn if owners[job.id] == owner]
                    entries = await self._rows.entries(pipe, [job.id for job in turn], watch=True)
                    changes += [(entry, transitions.started(entry.job, time.time())) for entry in entries]
                    served_changes.append((slot, served, turns.served_after(served, turn)))
                if not changes:
                    return started
                pipe.multi()
                for entry, job in changes:
                    self._rows.write(pipe, entry, job, events=[job], mark=mark)
                for slot, served, after in served_changes:
                    if gone := served - after:
                        pipe.srem(self._rows.key("served", slot), *gone)
                    if new := after - served:
                        pipe.sadd(self._rows.key("served", slot), *new)
                await pipe.execute()
            return started + [job for _, job in changes]

        return await self._connection.run(work)

    async def beat(self, owner: str, attempts: dict[str, int]) -> dict[str, Lease]:
        """Show a sign of life for jobs, and return the leases that ``owner`` still holds."""
        held: dict[str, Lease] = {}
        pairs = list(attempts.items())
        for first in range(0, len(pairs), BEATS):
            part = [str(value) for pair in pairs[first : first + BEATS] for value in pair]
            answer = await self._run_beat(owner, part)
            held |= {job_id: decode_lease(record) for job_id, record in zip(answer[::2], answer[1::2], strict=True)}
        return held

    async def progress(self, job_id: str, attempt: int, steps: Sequence[Progress]) -> bool:
        """Record steps of a job, each as an event."""

        def decide(job: Job) -> _Decision:
            jobs = transitions.progressed(job, attempt, steps)
            return None if jobs is None else (jobs[-1] if jobs else job, jobs)

        return await self._change(job_id, decide) is not None

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

        def decide(job: Job) -> _Decision:
            ended = transitions.finished(
                job, attempt, state=state, at=at, expires_at=expires_at, result=result, problem=problem
            )
            return None if ended is None else (ended, [ended])

        return await self._change(job_id, decide)

    async def request_cancel(self, job_id: str, *, at: float, expires_at: float) -> Job | None:
        """Cancel a job, or ask its owner to."""

        def decide(job: Job) -> _Decision:
            after = transitions.cancelled(job, at=at, expires_at=expires_at)
            return after, [after] if after.ended and not job.ended else []

        return await self._change(job_id, decide)

    async def update(self, job: Job, *, expected: Job) -> bool:
        """Replace an ended job."""

        def decide(stored: Job) -> _Decision:
            after = transitions.replaced(stored, job, expected)
            return None if after is None else (after, [])

        return await self._change(job.id, decide) is not None

    async def delete(self, job_id: str) -> Job | None:
        """Delete an ended job with its events."""
        deleted: Job | None = None

        async def work(again: bool) -> Job | None:
            nonlocal deleted
            async with self._client.pipeline(transaction=True) as pipe:
                entries = await self._rows.entries(pipe, [job_id], watch=True)
                if not entries:
                    return deleted if again else None
                job = entries[0].job
                if not job.ended:
                    return None
                key = self._rows.idempotency_key(job)
                await pipe.watch(key)
                its_key = job.idempotency_key is not None and await pipe.get(key) == job_id
                now, remembered = time.time(), self._rows.key("deleted")
                pipe.multi()
                self._rows.delete(pipe, entries[0])
                if its_key:
                    pipe.delete(key)
                pipe.zadd(remembered, {remembered_as(job_id, job.caller): now})
                pipe.zremrangebyscore(remembered, "-inf", now - REMEMBERED_S)
                pipe.zremrangebyrank(remembered, 0, -MAX_DELETED - 1)
                deleted = job
                await pipe.execute()
                return job

        return await self._connection.run(work)

    async def was_deleted(self, job_id: str, caller: str) -> bool:
        """Return whether the caller had a job of this id."""
        member = remembered_as(job_id, caller)
        return await self._connection.run(lambda _: self._client.zscore(self._rows.key("deleted"), member)) is not None

    async def expired(self, now: float, limit: int) -> Sequence[Job]:
        """Return ended jobs that are to be deleted."""
        return await self._until("expiry", now, limit)

    async def due_webhooks(self, now: float, limit: int, *, after: Job | None = None) -> Sequence[Job]:
        """Return ended jobs whose webhook is to be sent."""
        if after is None:
            return await self._until("webhooks", now, limit)
        key = self._rows.key("webhooks")
        rank = await self._connection.run(lambda _: self._client.zrank(key, after.id))
        if rank is None:
            return []
        rows = await self._connection.run(lambda _: self._client.zrange(key, rank + 1, rank + limit, withscores=True))
        return await self._jobs([job_id for job_id, due_at in rows if due_at <= now])

    async def events(self, job_id: str, after: int) -> Sequence[Event]:
        """Return the events of a job with ids above ``after``."""

        async def work(_: bool) -> tuple[str | None, list[tuple[str, dict[str, str]]]]:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.xrange(self._rows.key("events", job_id), min=f"({after}-0" if after > 0 else "-")
                pipe.hget(self._rows.key("job", job_id), "record")
                rows, record = await pipe.execute()
            return record, rows

        record, rows = await self._connection.run(work)
        if record is None:
            return []
        jobs = decode_events(record, [fields["event"] for _, fields in rows])
        return [Event(int(row[0].partition("-")[0]), job) for row, job in zip(rows, jobs, strict=True)]

    async def spend(self, caller: str, *, per_minute: int, now: float) -> Spent:
        """Count one request of the caller; twice if the connection is lost before the answer."""
        minute, second = divmod(now, 60)
        keys = [self._rows.key("spent", str(int(minute)), caller)]
        spent = int(await self._connection.run(lambda _: self._spend(keys=keys, args=[per_minute, SPENT_S])))
        return Spent(allowed=spent > 0, remaining=per_minute - spent if spent else 0, reset_s=60 - second)

    async def known(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the ids are those of jobs in the store."""

        async def work(_: bool) -> list[int]:
            async with self._client.pipeline(transaction=False) as pipe:
                for job_id in job_ids:
                    pipe.exists(self._rows.key("job", job_id))
                found: list[int] = await pipe.execute()
            return found

        found = await self._connection.run(work)
        return frozenset(job_id for job_id, there in zip(job_ids, found, strict=True) if there)

    async def _run_beat(self, owner: str, pairs: Sequence[str]) -> Sequence[Any]:
        answer: Sequence[Any] = await self._connection.run(
            lambda _: self._beat(keys=[], args=[owner, self._rows.key("job", ""), *pairs])
        )
        return answer

    async def _change(self, job_id: str, decide: Callable[[Job], _Decision]) -> Job | None:
        """Replace a job by what ``decide`` returns, with its events, and return it.

        Return None if there is no such job or ``decide`` returns None.
        """
        mark = secrets.token_hex(8)

        async def work(again: bool) -> Job | None:
            async with self._client.pipeline(transaction=True) as pipe:
                entries = await self._rows.entries(pipe, [job_id], watch=True)
                if not entries:
                    return None
                [entry] = entries
                if again and entry.write == mark:
                    return entry.job
                decision = decide(entry.job)
                if decision is None:
                    return None
                job, events = decision
                if events or job != entry.job:
                    pipe.multi()
                    self._rows.write(pipe, entry, job, events=events, mark=mark)
                    await pipe.execute()
                return job

        return await self._connection.run(work)

    async def _jobs(self, job_ids: Collection[str]) -> Sequence[Job]:
        """Return those of the jobs that there are."""

        async def work(_: bool) -> list[list[str | None]]:
            async with self._client.pipeline(transaction=False) as pipe:
                for job_id in job_ids:
                    pipe.hmget(self._rows.key("job", job_id), ("record", "beat"))
                rows: list[list[str | None]] = await pipe.execute()
            return rows

        rows = await self._connection.run(work)
        return [decode(record, beat=int(beat or 0)) for record, beat in rows if record is not None]

    async def _until(self, name: str, now: float, limit: int) -> Sequence[Job]:
        ids = await self._connection.run(
            lambda _: self._client.zrange(self._rows.key(name), "-inf", now, byscore=True, offset=0, num=limit)
        )
        return await self._jobs(ids)
