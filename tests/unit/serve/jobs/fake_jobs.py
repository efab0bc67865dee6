"""Jobs in memory: a store, files and a desk over them, for tests of what uses them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from serve.jobs.desk import News
from serve.jobs.results.outcome import Outcome
from serve.jobs.store.job_store import Event, Page, Spent, StoreUnavailable
from serve.jobs.store.limits import QueueFull
from serve.jobs.store.record import Job, Progress, State, StoredResult, new_job_id

NOW = 1_790_000_000.0
"""When the jobs of tests are created: 2026-09-21T14:13:20Z."""
NEVER = 4_102_444_800.0
"""When the jobs of tests expire: in the year 2100."""


def make_job(**fields: Any) -> Job:
    """Return a queued job; ``fields`` replaces any of its fields."""
    defaults: dict[str, Any] = {
        "id": new_job_id(),
        "caller": "testclient",
        "endpoint": "wan2.6",
        "slot": "wan26",
        "request_id": "the-request",
        "media_type": "video/mp4",
        "created_at": NOW,
        "deadline_at": NOW + 1800,
        "expires_at": NEVER,
        "seed": 7,
    }
    return Job(**{**defaults, **fields})


def stored(data: bytes, job_id: str, **fields: Any) -> StoredResult:
    """Return what a record says of a result with the content ``data``."""
    defaults: dict[str, Any] = {
        "key": f"results/{job_id}/1",
        "media_type": "video/mp4",
        "size": len(data),
        "etag": "0123abcd",
        "headers": {"X-Model": "wan2.6", "X-Seed": "7", "Content-Disposition": 'inline; filename="a.mp4"'},
    }
    return StoredResult(**{**defaults, **fields})


@dataclass
class FakeFiles:
    """Files in memory. ``reads`` has the ranges that were read."""

    content: dict[str, bytes] = field(default_factory=dict)
    reads: list[tuple[str, int, int]] = field(default_factory=list)

    async def put(self, key: str, data: bytes | BinaryIO) -> None:
        self.content[key] = data if isinstance(data, bytes) else data.read()

    async def get(self, key: str) -> bytes | None:
        return self.content.get(key)

    async def size(self, key: str) -> int | None:
        return len(self.content[key]) if key in self.content else None

    async def free_bytes(self) -> int | None:
        return None

    async def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        self.reads.append((key, start, end))
        for at in range(start, end, 1000):
            yield self.content[key][at : min(at + 1000, end)]

    async def delete(self, key: str) -> None:
        self.content.pop(key, None)

    async def delete_all(self, folder: str) -> None:
        for key in [key for key in self.content if key.startswith(f"{folder}/")]:
            del self.content[key]

    async def list(self, folder: str) -> list[tuple[str, float]]:
        return [(key, NOW) for key in self.content if key.startswith(f"{folder}/")]


@dataclass
class FakeJobs:
    """The store and the desk of jobs in one: what tests of the HTTP layer need of both.

    With ``broken`` every call raises StoreUnavailable.
    """

    files: FakeFiles = field(default_factory=FakeFiles)
    jobs: dict[str, Job] = field(default_factory=dict)
    history: dict[str, list[Event]] = field(default_factory=dict)
    deleted: set[tuple[str, str]] = field(default_factory=set)
    requests: dict[str, bytes] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    following: int = 0
    broken: bool = False
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def add(self, job: Job) -> Job:
        """Add a job with its first event."""
        self.jobs[job.id] = job
        self.history[job.id] = [Event(1, job)]
        return job

    async def change(self, job_id: str, **fields: Any) -> Job:
        """Change a job and tell its listeners."""
        job = self.jobs[job_id] = replace(self.jobs[job_id], **fields)
        events = self.history[job_id]
        events.append(Event(len(events) + 1, job))
        async with self._changed:
            self._changed.notify_all()
        return job

    async def step(self, job_id: str, **progress: Any) -> Job:
        """Record a step of a job."""
        job = self.jobs[job_id].with_progress(replace(self.jobs[job_id].progress, **progress))
        return await self.change(job_id, progress=job.progress, state=job.state)

    async def succeed(self, job_id: str, data: bytes, **result: Any) -> Job:
        """End a job with a result."""
        await self.files.put(f"results/{job_id}/1", data)
        done = Progress(stage="writing", percent=100)
        return await self.change(
            job_id, state="succeeded", finished_at=NOW + 9, attempt=1, progress=done, result=stored(data, job_id, **result)
        )

    def _check(self) -> None:
        if self.broken:
            raise StoreUnavailable("no route to the store")

    # What the HTTP layer asks of the store.

    async def list(self, caller: str, *, state: State | None, limit: int, cursor: str | None) -> Page:
        self._check()
        offset = int(cursor or "0", 10)
        newest = sorted(self.jobs.values(), key=lambda job: -job.created_at)
        theirs = [job for job in newest if job.caller == caller and state in (None, job.state)]
        # Like a real cursor, it stays valid when jobs before it are deleted.
        rest = [job for job in theirs if not offset or job.created_at < offset]
        more = len(rest) > limit
        return Page(tuple(rest[:limit]), f"{rest[limit - 1].created_at:.0f}" if more else None)

    async def cursor_after(self, job_id: str, caller: str) -> str | None:
        self._check()
        job = self.jobs.get(job_id)
        return f"{job.created_at:.0f}" if job is not None and job.caller == caller else None

    async def events(self, job_id: str, after: int) -> Sequence[Event]:
        self._check()
        return [event for event in self.history.get(job_id, []) if event.id > after]

    async def was_deleted(self, job_id: str, caller: str) -> bool:
        self._check()
        return (job_id, caller) in self.deleted

    async def spend(self, caller: str, *, per_minute: int, now: float) -> Spent:
        self._check()
        used = self.spent.get(caller, 0)
        if used >= per_minute:
            return Spent(False, 0, 60 - now % 60)
        self.spent[caller] = used + 1
        return Spent(True, per_minute - used - 1, 60 - now % 60)

    # The desk.

    async def run(self, job: Job, request: bytes) -> Outcome:
        raise NotImplementedError

    async def accept(self, job: Job, request: bytes) -> Job:
        self._check()
        for earlier in self.jobs.values():
            if job.idempotency_key and (earlier.caller, earlier.idempotency_key) == (job.caller, job.idempotency_key):
                return earlier
        if len(self.jobs) >= 100:
            raise QueueFull(100)
        self.requests[job.id] = request
        return self.add(job)

    async def wait(self, job_id: str, timeout_s: float) -> Job | None:
        self._check()
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: job_id not in self.jobs or self.jobs[job_id].ended)
        except TimeoutError:
            pass
        return self.jobs.get(job_id)

    async def get(self, job_id: str, caller: str = "") -> Job | None:
        self._check()
        job = self.jobs.get(job_id)
        return job if job is not None and job.caller == caller else None

    async def position(self, job: Job) -> int | None:
        self._check()
        queued = [other.id for other in self.jobs.values() if other.state == "queued"]
        return queued.index(job.id) if job.id in queued else None

    async def follow(self, job_id: str, after: int) -> AsyncIterator[News]:
        self.following += 1
        last: Event | None = None
        try:
            while last is None or not last.job.ended:
                self._check()
                for event in await self.events(job_id, after):
                    last, after = event, event.id
                    yield News(event.job, event.id, await self.position(event.job))
                if last is None or not last.job.ended:
                    async with self._changed:
                        while not self.broken and self.history[job_id][-1].id <= after:
                            await self._changed.wait()
        finally:
            self.following -= 1

    async def cancel(self, job_id: str, caller: str) -> Job | None:
        job = await self.get(job_id, caller)
        if job is None or job.ended:
            return job
        if job.state == "queued":
            return await self.change(job_id, state="cancelled", finished_at=NOW + 1)
        return await self.change(job_id, cancel_requested=True)

    async def delete(self, job_id: str, caller: str) -> Job | None:
        job = await self.get(job_id, caller)
        if job is not None:
            del self.jobs[job_id]
            self.deleted.add((job_id, caller))
            await self.files.delete_all(f"results/{job_id}")
            await self.files.delete_all(f"previews/{job_id}")
        return job

    async def break_down(self) -> None:
        """Let every call from now on, and every listener, see a store that cannot be reached."""
        self.broken = True
        async with self._changed:
            self._changed.notify_all()
