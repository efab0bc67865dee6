"""The call of the script that creates a job in Redis: what it gets, and what its answer means."""

import json
from collections.abc import Sequence
from typing import Any

from serve.jobs.store import transitions
from serve.jobs.store.encoding import decode, encode_event
from serve.jobs.store.job_store import KeyReused
from serve.jobs.store.limits import ALL_KEPT, KeptFull, Limits, QueueFull, ServiceFull, StorageFull
from serve.jobs.store.record import Job
from serve.jobs.store.redis_rows import RedisRows, hash_of


class Creation:
    """Creates ``job`` if there is room, or finds out whether there is."""

    def __init__(self, rows: RedisRows, job: Job, max_queued: int, limits: Limits) -> None:
        self._rows = rows
        self._job = job
        self._max_queued = max_queued
        self._limits = limits

    @property
    def keys(self) -> list[str]:
        """The keys, as the script names them."""
        key, job = self._rows.key, self._job
        return [
            key("job", job.id), key("events", job.id), self._rows.idempotency_key(job), key("in", "queued", job.caller),
            key("all", job.caller), key("number"), key("active"), key("turns", job.slot), key("kept"), key("kept-total"),
            key("kept-until", job.caller),
        ]  # fmt: skip

    def arguments(self, *, change: bool) -> list[Any]:
        """Return the arguments; without ``change`` the script adds nothing."""
        job, limits = self._job, self._limits
        turn = json.dumps([job.caller, False, job.owner])[1:]
        most = [-1 if limit is None else limit for limit in (limits.max_kept_of_caller, limits.max_queued, limits.max_kept)]
        fields = [value for field in (hash_of(job, "") | {"fingerprint": job.fingerprint}).items() for value in field]
        return [
            job.id, job.created_at, self._max_queued, self._rows.key("job", ""), int(job.idempotency_key is not None),
            encode_event(job), turn, job.caller, job.kept_bytes, *most, int(not change), *fields,
        ]  # fmt: skip

    def instead(self, answer: Sequence[Any]) -> Job | None:
        """Return the job that is there instead of this one, if any.

        Raises what ``JobStore.create`` raises.
        """
        match answer:
            case ["full", queued]:
                raise QueueFull(int(queued))
            case ["kept", kept, until]:
                raise KeptFull(int(kept), self._limits.max_kept_of_caller or 0, float(until) if until else None)
            case ["all full", queued]:
                raise ServiceFull(int(queued))
            case ["all kept"]:
                raise StorageFull(ALL_KEPT)
            case ["same", record, beat, _]:
                same = decode(record, beat=int(beat))
                if differs := transitions.differences(same, self._job):
                    raise KeyReused(self._job.idempotency_key, differs)
                return same
            case ["there", record, beat]:
                return decode(record, beat=int(beat))
        return None
