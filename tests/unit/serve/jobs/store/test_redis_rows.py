"""The jobs in Redis: their keys, and what one change of a job writes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from serve.jobs.store.encoding import encode, encode_event
from serve.jobs.store.job_store import PACE_JOBS
from serve.jobs.store.record import Delivery, Job, Progress, State
from serve.jobs.store.redis_rows import MAX_EVENTS, Entry, RedisRows, hash_of, remembered_as, waiting_jobs
from serve.jobs.store.turns import Waiting
from tests.unit.serve.jobs.samples import NOW, RESULT, new_job

ROWS = RedisRows("films:")


class Pipe:
    """Keeps the commands that it is given, and answers reads from ``hashes``."""

    def __init__(self, hashes: dict[str, dict[str, Any]] | None = None) -> None:
        self.commands: list[tuple[Any, ...]] = []
        self.watched: list[str] = []
        self._hashes = hashes or {}

    def __getattr__(self, name: str) -> Any:
        def command(*values: Any, **options: Any) -> None:
            self.commands.append((name, *values, options) if options else (name, *values))

        return command

    async def watch(self, *keys: str) -> None:
        self.watched += keys

    async def hmget(self, key: str, fields: tuple[str, ...]) -> list[str | None]:
        found = self._hashes.get(key, {})
        return [None if found.get(name) is None else str(found[name]) for name in fields]

    def keys(self, name: str) -> list[str]:
        """Return the first key of each command of a name."""
        return [command[1] for command in self.commands if command[0] == name]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.commands)


def entry(job: Job, **fields: Any) -> Entry:
    return Entry(**{"job": job, "number": 17, "events": 3, "write": "old", "kept": job.kept_bytes, **fields})


def written(before: Job, job: Job, *, events: tuple[Job, ...] = (), **fields: Any) -> Pipe:
    """Return the commands that replace ``before`` by ``job``."""
    pipe = Pipe()
    ROWS.write(pipe, entry(before, **fields), job, events=events, mark="new")
    return pipe


def test_keys_stand_below_the_prefix_and_those_of_two_callers_differ() -> None:
    assert ROWS.key("in", "queued", "ann") == "films:in:queued:ann"
    jobs = [
        new_job(caller=caller, idempotency_key=key)
        for caller, key in (("ann", "k"), ("ann", "k2"), ("ann:k", ""), ("an", "nk"), ("bob", "k"), ("ann", "\ud800" * 9999))
    ]
    keys = [ROWS.idempotency_key(job) for job in jobs]
    assert len(set(keys)) == len(jobs)
    assert {len(key) for key in keys} == {len("films:key:") + 64}
    assert ROWS.idempotency_key(new_job(caller="ann", idempotency_key="k")) == keys[0]
    assert remembered_as("a", "b c") == "a b c"


def test_events_get_the_next_numbers_and_a_bound() -> None:
    job = new_job(state="running")
    steps = tuple(replace(job, progress=Progress(stage="denoising", step=step)) for step in (1, 2))
    pipe = written(job, steps[-1], events=steps)
    adds = [command for command in pipe if command[0] == "xadd"]
    bound = {"maxlen": MAX_EVENTS, "approximate": True}
    assert adds == [
        ("xadd", f"films:events:{job.id}", {"event": encode_event(step)}, {"id": f"{number}-0", **bound})
        for number, step in zip((4, 5), steps, strict=True)
    ]
    (change,) = [command for command in pipe if command[0] == "hset"]
    assert change == ("hset", f"films:job:{job.id}", {"mapping": hash_of(steps[-1], "new") | {"events": 5}})
    assert len(pipe.commands) == 3  # a step moves the job nowhere


def test_a_job_that_starts_moves_to_another_state_and_runs_in_its_slot() -> None:
    job = new_job(owner="one", attempt=1)
    after = replace(job, state="starting")
    pipe = written(job, after)
    assert ("zrem", "films:in:queued:ann", job.id) in pipe.commands
    assert ("zadd", "films:in:starting:ann", {job.id: 17}) in pipe.commands
    (turn,) = [command for command in pipe if command[:2] == ("hset", "films:turns:wan26")]
    assert turn[2] == job.id
    assert waiting_jobs("wan26", {job.id: turn[3]}) == [
        (Waiting(id=job.id, caller="ann", slot="wan26", number=17, running=True), "one")
    ]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_an_ended_job_leaves_its_slot_and_gets_a_time_to_go(state: State) -> None:
    job = new_job(state="running", started_at=NOW + 1, request_bytes=100)
    after = replace(job, state=state, finished_at=NOW + 9, expires_at=NOW + 50)
    pipe = written(job, after)
    assert ("hdel", "films:turns:wan26", job.id) in pipe.commands
    assert ("srem", "films:active", job.id) in pipe.commands
    assert ("zadd", "films:expiry", {job.id: NOW + 50}) in pipe.commands
    assert ("zrem", "films:kept-until:ann", job.id) in pipe.commands
    assert ("zrem", "films:webhooks", job.id) in pipe.commands
    paces = [("lpush", "films:taken:wan26", 8.0), ("ltrim", "films:taken:wan26", 0, PACE_JOBS - 1)]
    assert [command for command in pipe if command[0] in ("lpush", "ltrim")] == (paces if state == "succeeded" else [])
    (count,) = [command for command in pipe if command[0] == "eval"]
    assert count[2:] == (2, "films:kept", "films:kept-total", "ann", -100)


def test_a_stored_result_and_a_webhook_are_found_by_their_times() -> None:
    webhook = Delivery(url="https://example.org", id="w", next_at=NOW + 30)
    job = new_job(state="running", request_bytes=100, webhook=webhook)
    after = replace(job, state="succeeded", result=replace(RESULT, size=3000), expires_at=NOW + 50)
    pipe = written(job, after)
    assert ("zadd", "films:kept-until:ann", {job.id: NOW + 50}) in pipe.commands
    assert ("zadd", "films:webhooks", {job.id: NOW + 30}) in pipe.commands
    assert [command[-1] for command in pipe if command[0] == "eval"] == [2900]


def test_bytes_are_counted_from_what_was_counted_before_and_not_if_nothing_changes() -> None:
    """A job of an earlier release has none that were counted."""
    job = new_job(request_bytes=100)
    assert written(job, replace(job, beat=1)).keys("eval") == []
    assert [command[-1] for command in written(job, job, kept=0) if command[0] == "eval"] == [100]


def test_a_deleted_job_is_found_nowhere() -> None:
    pipe = Pipe()
    job = new_job(state="succeeded", result=replace(RESULT, size=3000))
    ROWS.delete(pipe, entry(job))
    assert pipe.commands[0] == ("delete", f"films:job:{job.id}", f"films:events:{job.id}")
    sets = ["all:ann", "in:succeeded:ann", "expiry", "webhooks", "kept-until:ann"]
    assert sorted(pipe.keys("zrem")) == sorted(f"films:{name}" for name in sets)
    assert [command[-2:] for command in pipe if command[0] == "eval"] == [("ann", -3000)]


async def test_jobs_are_read_in_order_and_those_that_are_gone_are_left_out() -> None:
    first, second = new_job(beat=1), new_job()
    stored = hash_of(first, "mark") | {"number": 4, "events": 2}
    old = {"record": encode(second), "beat": 6, "number": 5, "events": 1, "write": ""}  # of an earlier release
    pipe = Pipe({ROWS.key("job", first.id): stored, ROWS.key("job", second.id): old})
    ids = [second.id, "0" * 32, first.id]
    assert await ROWS.entries(pipe, ids, watch=True) == [
        Entry(replace(second, beat=6), 5, 1, "", 0),
        Entry(first, 4, 2, "mark", 0),
    ]
    assert pipe.watched == [ROWS.key("job", job_id) for job_id in ids]
    await ROWS.entries(pipe, ids)
    assert await ROWS.entries(pipe, [], watch=True) == []
    assert len(pipe.watched) == 3


def test_the_turn_of_a_job_tells_what_decides_when_it_starts() -> None:
    job = new_job(caller='a"]', owner="one")
    assert json.loads(entry(job).turn()) == [17, 'a"]', False, "one"]
    assert json.loads(entry(replace(job, state="running")).turn()) == [17, 'a"]', True, "one"]
