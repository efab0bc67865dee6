"""The interface of the store of jobs, which SQLite and Redis implement alike.

Every method is atomic. An ``attempt`` fences: a method that takes one changes nothing and returns
None or False if the job has a later attempt, has ended or is gone. So a Runner that was thought
dead cannot overwrite what its successor wrote.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from serve.jobs.store.limits import NO_LIMITS, Limits
from serve.jobs.store.record import Job, Lease, Progress, State, StoredResult
from serve.jobs.store.turns import Waiting

PACE_JOBS = 10
"""The number of jobs of a slot whose mean time is its pace."""
UNREACHABLE = "cannot be reached now; try again"


class StoreUnavailable(Exception):
    """The store cannot be reached or cannot write. Nothing was changed.

    The message is for the operator. ``told`` is what callers learn, after "the store of jobs".
    """

    def __init__(self, message: str = "", *, told: str = UNREACHABLE) -> None:
        super().__init__(message)
        self.told = told


class OutcomeUnknown(StoreUnavailable):
    """The store did not answer: the change may have been made, or may be made yet."""


class KeyReused(Exception):
    """The idempotency key stands for a job with another request.

    ``differs`` says in what, as ``transitions.differences`` names it.
    """

    def __init__(self, key: str | None = None, differs: Sequence[str] = ()) -> None:
        super().__init__(key)
        self.differs = tuple(differs)


@dataclass(frozen=True)
class Event:
    """One step of a job, as listeners get it. ``id`` grows by one with each event of the job."""

    id: int
    job: Job


@dataclass(frozen=True)
class Page:
    """Some jobs, newest first, and the cursor of the next page, or None at the end."""

    jobs: tuple[Job, ...]
    cursor: str | None


@dataclass(frozen=True)
class Queue:
    """The jobs of a slot that have not ended.

    ``waiting`` are in the order in which they start, ``running`` are ids. ``pace_s`` is the mean
    time that the latest jobs took from their start to their result, in seconds; None before the
    first one has ended.
    """

    waiting: tuple[Waiting, ...]
    running: tuple[str, ...]
    pace_s: float | None


@dataclass(frozen=True)
class Kept:
    """The files of all jobs: their size in bytes, and that of the caller who has most of them."""

    bytes: int
    most_of_one: int


class JobStore(Protocol):
    """Records, events and turns of jobs. Raises StoreUnavailable where it cannot work."""

    async def open(self) -> None:
        """Connect, and create what is missing."""

    async def close(self) -> None:
        """Free all connections."""

    async def create(self, job: Job, *, max_queued: int, limits: Limits = NO_LIMITS) -> Job:
        """Add ``job`` and its first event, count the files that it keeps, and return it.

        With an idempotency key for which the caller has a job that has not failed and not expired,
        return that job instead; raise KeyReused if its request differs. Raise QueueFull if
        ``max_queued`` jobs of the caller are queued already, and ServiceFull if there are as many
        of all callers as ``limits`` allow. A job that keeps files is refused with KeptFull or
        StorageFull if there would be more of them than ``limits`` allow.
        """

    async def look_up(self, job: Job, *, max_queued: int, limits: Limits = NO_LIMITS) -> Job | None:
        """Return the earlier job that ``create`` would return, or None if it would add ``job``.

        Raises what ``create`` would raise, and changes nothing.
        """

    async def kept(self) -> Kept:
        """Return how much all jobs keep."""

    async def get(self, job_id: str) -> Job | None:
        """Return a job, or None if there is none, or none any more."""

    async def list(self, caller: str, *, state: State | None, limit: int, cursor: str | None) -> Page:
        """Return the caller's jobs, newest first. Raise ValueError for a malformed cursor."""

    async def cursor_after(self, job_id: str, caller: str) -> str | None:
        """Return the cursor of the list that begins after a job, or None if the caller has none."""

    async def active(self) -> Sequence[Job]:
        """Return all jobs that have not ended."""

    async def queue(self, slot: str) -> Queue:
        """Return the jobs of ``slot`` that have not ended, in the order of ``store.turns``."""

    async def take(self, owner: str, job_id: str, *, known_beat: int | None = None) -> Job | None:
        """Give ``owner`` the lease of a job that has not ended, as a new attempt, and queue it.

        A job with an owner is only given away if its beat is ``known_beat``: its Runner has shown
        no sign of life since. Return the job with its new attempt, or None.
        """

    async def start(self, owner: str, *, slots: dict[str, int], max_running: int) -> Sequence[Job]:
        """Start those queued jobs of ``owner`` whose turn it is, and return them.

        ``slots`` says how many jobs of each slot run at a time, and ``max_running`` how many of one
        caller. The order is that of ``serve.jobs.store.turns``.
        """

    async def beat(self, owner: str, attempts: dict[str, int]) -> dict[str, Lease]:
        """Show a sign of life for jobs, by id with their attempts.

        Return the leases that ``owner`` still holds; a job that is missing must be stopped.
        """

    async def progress(self, job_id: str, attempt: int, steps: Sequence[Progress]) -> bool:
        """Record steps of a job, each as an event, in order."""

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
        """End a job, with its last event. Exactly one call for a job returns the ended job."""

    async def request_cancel(self, job_id: str, *, at: float, expires_at: float) -> Job | None:
        """Cancel a job: at once if it is queued, else by asking its owner.

        Return the job as it is then, or None if there is none. Repeating it changes nothing.
        """

    async def update(self, job: Job, *, expected: Job) -> bool:
        """Replace an ended job by ``job`` if it still equals ``expected``, as webhooks need it."""

    async def delete(self, job_id: str) -> Job | None:
        """Delete an ended job with its events, and return it. Its id is remembered as expired."""

    async def was_deleted(self, job_id: str, caller: str) -> bool:
        """Return whether the caller had a job of this id that was deleted or has expired."""

    async def expired(self, now: float, limit: int) -> Sequence[Job]:
        """Return ended jobs that are to be deleted."""

    async def due_webhooks(self, now: float, limit: int, *, after: Job | None = None) -> Sequence[Job]:
        """Return ended jobs whose webhook is to be sent now, those first that have waited longest.

        With ``after``, return those behind this one of them; none if it is not due any more.
        """

    async def events(self, job_id: str, after: int) -> Sequence[Event]:
        """Return the events of a job with ids above ``after``, in order."""

    async def spend(self, caller: str, *, per_minute: int, now: float) -> "Spent":
        """Count one request of the caller against its requests a minute."""

    async def known(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the ids are in the store, so that orphan files are found."""


@dataclass(frozen=True)
class Spent:
    """A caller's requests in the current minute.

    ``allowed`` is False, and nothing was counted, if there were ``per_minute`` already.
    """

    allowed: bool
    remaining: int
    reset_s: float
    """Seconds until the minute ends."""
