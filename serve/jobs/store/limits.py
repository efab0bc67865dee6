"""What the store of jobs holds at most, and how it refuses a job for which there is no room."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the store that hold for a new job; None for no limit.

    ``max_queued`` is how many jobs of all callers may wait for their turn. ``max_kept_of_caller``
    and ``max_kept`` are how many bytes of files the jobs of one caller and of all callers may have.
    """

    max_queued: int | None = None
    max_kept_of_caller: int | None = None
    max_kept: int | None = None


NO_LIMITS = Limits()
ALL_KEPT = "the files of all jobs take as much space as they may"
"""Why storage is full although there is room on the disk."""


class NoRoom(Exception):
    """There is no room for a job. ``retry_after_s`` estimates when there may be, in seconds."""

    def __init__(self, *values: object, retry_after_s: float) -> None:
        super().__init__(*values)
        self.retry_after_s = retry_after_s


class QueueFull(NoRoom):
    """The caller has as many jobs waiting as it may. ``queued`` says how many."""

    def __init__(self, queued: int, retry_after_s: float = 10) -> None:
        super().__init__(queued, retry_after_s=retry_after_s)
        self.queued = queued


class ServiceFull(NoRoom):
    """All callers together have as many jobs waiting as they may. ``queued`` says how many."""

    def __init__(self, queued: int, retry_after_s: float = 10) -> None:
        super().__init__(queued, retry_after_s=retry_after_s)
        self.queued = queued


class KeptFull(NoRoom):
    """The jobs of the caller keep ``kept`` bytes of files, and may keep ``limit``.

    ``until`` is when the first ended one of them expires, in seconds since the epoch; None if none
    has ended.
    """

    def __init__(self, kept: int, limit: int, until: float | None, retry_after_s: float = 60) -> None:
        super().__init__(kept, limit, until, retry_after_s=retry_after_s)
        self.kept = kept
        self.limit = limit
        self.until = until


class RequestTooLarge(Exception):
    """A request of ``size`` bytes can never be kept: a caller's jobs may have ``limit`` in all."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit


class StorageFull(NoRoom):
    """The files of all jobs take as much space as they may, or the disk has too little left."""

    def __init__(self, why: str, retry_after_s: float = 60) -> None:
        super().__init__(why, retry_after_s=retry_after_s)
