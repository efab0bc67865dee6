"""The jobs in Redis: their keys, and how a job is read and written."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from serve.jobs.store import transitions
from serve.jobs.store.encoding import decode, encode, encode_event
from serve.jobs.store.job_store import PACE_JOBS
from serve.jobs.store.record import Job
from serve.jobs.store.redis_scripts import COUNT
from serve.jobs.store.turns import Waiting

MAX_EVENTS = 10_000
"""The latest events of a job that are kept, and a few more."""
_FIELDS = ("record", "beat", "number", "events", "write", "kept")


@dataclass(frozen=True)
class Entry:
    """A job in Redis. ``write`` is the mark of the call that wrote it last.

    ``kept`` are the bytes of its files that the usage of its caller has.
    """

    job: Job
    number: int
    events: int
    write: str
    kept: int

    def turn(self) -> str:
        """Return the part of the job that is kept with the turns of its slot."""
        return json.dumps([self.number, self.job.caller, self.job.state != "queued", self.job.owner])


class RedisRows:
    """The keys and the jobs below ``prefix``."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def key(self, *names: str) -> str:
        """Return the name of a key in Redis."""
        return self._prefix + ":".join(names)

    def idempotency_key(self, job: Job) -> str:
        """Return the key under which a job is found by its idempotency key."""
        # Both come from callers: a hash tells them apart and bounds their size.
        parts = json.dumps([job.caller, job.idempotency_key])
        return self.key("key", hashlib.sha256(parts.encode()).hexdigest())

    def write(self, pipe: Any, entry: Entry, job: Job, *, events: Sequence[Job], mark: str) -> None:
        """Add to ``pipe`` what replaces the job of ``entry`` by ``job``."""
        before = entry.job
        after = Entry(job, number=entry.number, events=entry.events + len(events), write=mark, kept=job.kept_bytes)
        pipe.hset(self.key("job", job.id), mapping=hash_of(job, mark) | {"events": after.events})
        for number, event in enumerate(events, entry.events + 1):
            pipe.xadd(
                self.key("events", job.id),
                {"event": encode_event(event)},
                id=f"{number}-0",
                maxlen=MAX_EVENTS,
                approximate=True,
            )
        if before.state != job.state:
            pipe.zrem(self.key("in", before.state, job.caller), job.id)
            pipe.zadd(self.key("in", job.state, job.caller), {job.id: entry.number})
        self._count(pipe, job, job.kept_bytes - entry.kept)
        if not job.ended:
            if entry.turn() != after.turn():
                pipe.hset(self.key("turns", job.slot), job.id, after.turn())
            return
        if (seconds := transitions.seconds_taken(before, job)) is not None:
            pipe.lpush(self.key("taken", job.slot), seconds)
            pipe.ltrim(self.key("taken", job.slot), 0, PACE_JOBS - 1)
        pipe.hdel(self.key("turns", job.slot), job.id)
        pipe.srem(self.key("active"), job.id)
        pipe.zadd(self.key("expiry"), {job.id: job.expires_at})
        if job.kept_bytes:
            pipe.zadd(self.key("kept-until", job.caller), {job.id: job.expires_at})
        else:
            pipe.zrem(self.key("kept-until", job.caller), job.id)
        due_at = transitions.webhook_due_at(job)
        if due_at is None:
            pipe.zrem(self.key("webhooks"), job.id)
        else:
            pipe.zadd(self.key("webhooks"), {job.id: due_at})

    def delete(self, pipe: Any, entry: Entry) -> None:
        """Add to ``pipe`` what deletes an ended job and all that refers to it."""
        job = entry.job
        pipe.delete(self.key("job", job.id), self.key("events", job.id))
        for names in (
            ("all", job.caller),
            ("in", job.state, job.caller),
            ("expiry",),
            ("webhooks",),
            ("kept-until", job.caller),
        ):
            pipe.zrem(self.key(*names), job.id)
        self._count(pipe, job, -entry.kept)

    def _count(self, pipe: Any, job: Job, change: int) -> None:
        """Add ``change`` bytes to what the jobs of a job's caller keep."""
        if change:
            pipe.eval(COUNT, 2, self.key("kept"), self.key("kept-total"), job.caller, change)

    async def entries(self, pipe: Any, job_ids: Collection[str], *, watch: bool = False) -> Sequence[Entry]:
        """Read jobs with a pipe that watches, and leave out those that are gone."""
        keys = [self.key("job", job_id) for job_id in job_ids]
        if watch and keys:
            await pipe.watch(*keys)
        rows = [await pipe.hmget(key, _FIELDS) for key in keys]
        return [
            Entry(decode(record, beat=int(beat)), number=int(number), events=int(events), write=write, kept=int(kept or 0))
            for record, beat, number, events, write, kept in rows
            if record is not None
        ]


def hash_of(job: Job, mark: str) -> dict[str, str | int | float]:
    """Return the fields of a job's hash that follow from the job."""
    return {
        "record": encode(job), "beat": job.beat, "attempt": job.attempt, "owner": job.owner, "state": job.state,
        "expires_at": job.expires_at, "write": mark, "kept": job.kept_bytes,
    }  # fmt: skip


def waiting_jobs(slot: str, rows: dict[str, str]) -> list[tuple[Waiting, str]]:
    """Return the jobs of ``slot`` that have not ended, each with its owner."""
    found: list[tuple[Waiting, str]] = []
    for job_id, row in rows.items():
        number, caller, running, owner = json.loads(row)
        found.append((Waiting(id=job_id, caller=caller, slot=slot, number=number, running=running), owner))
    return found


def remembered_as(job_id: str, caller: str) -> str:
    """Return what is kept of a deleted job."""
    return f"{job_id} {caller}"
