"""The record of a job: what is known about it, from its acceptance until it expires."""

import secrets
from dataclasses import dataclass, replace
from typing import Any, Literal

State = Literal["queued", "starting", "running", "succeeded", "failed", "cancelled"]
"""`queued` until it is the job's turn, `starting` until its model has begun, then `running`."""
Stage = Literal["queued", "starting", "encoding", "denoising", "decoding", "swapping", "writing"]

ENDED: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
"""The states that a job never leaves."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is.

    ``step`` of ``steps`` counts denoise steps, or frames while faces are swapped. ``percent`` never
    falls, except when a new attempt begins. ``detail`` says what a starting model is doing.
    """

    stage: Stage = "queued"
    step: int = 0
    steps: int = 0
    percent: float = 0.0
    eta_s: float | None = None
    detail: str = ""
    preview: bool = False
    """Whether the latest decoded frame can be fetched."""
    preview_marks: str = ""
    """What `X-Provenance` says about that frame; empty if the Runner is of an older release."""


@dataclass(frozen=True, kw_only=True)
class StoredResult:
    """Where the result of a succeeded job is, and the headers with which it is sent.

    ``key`` is its name in the result store; None for a result that only the waiting caller got.
    """

    key: str | None
    media_type: str
    size: int
    etag: str
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The webhook of a job: where it goes, and what became of it."""

    url: str
    id: str
    """The same for all attempts, so that receivers can tell a repetition."""
    attempts: int = 0
    state: Literal["pending", "delivered", "failed"] = "pending"
    next_at: float | None = None
    """When it is sent (again), in seconds since the epoch."""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What the owner of a job learns when it shows a sign of life."""

    state: State
    cancel_requested: bool


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job. Times are in seconds since the epoch.

    ``caller`` is the name of the caller's key, or the caller's address. ``slot`` names the queue in
    which it waits: jobs of one slot wait for the same replicas.
    """

    id: str
    caller: str
    endpoint: str
    slot: str
    request_id: str
    media_type: str
    """The format of the result."""
    created_at: float
    deadline_at: float
    expires_at: float
    """When the record and the result are deleted; a job that has not ended is never deleted."""
    seed: int | None = None
    durable: bool = True
    """Whether its request and result are stored. If not, it ends with the caller that waits."""
    idempotency_key: str | None = None
    fingerprint: str = ""
    """SHA-256 of the request, by which another body under the same idempotency key is
    recognised."""
    trace: str = ""
    """The `traceparent` of the request that the job was made of, if traces are recorded."""
    request_bytes: int = 0
    """The size of its request in the file store; 0 for one that travels with the call."""
    details: dict[str, Any] | None = None
    """What other interfaces keep with a job, such as the model's name in /v1/videos."""

    ignored: tuple[str, ...] = ()
    """The fields of the request that have no effect, as `X-Ignored-Fields` names them."""
    adjusted: tuple[tuple[str, int], ...] = ()
    """The fields that were lowered to the limits, with the values that are used instead."""

    state: State = "queued"
    progress: Progress = Progress()
    attempt: int = 0
    """The number of the latest attempt. Whoever writes names the attempt, and is refused if there
    is a later one."""
    begun: int = 0
    """How many attempts have had their turn. One that was lost while it waited costs nothing."""
    owner: str = ""
    """The Runner replica that holds the lease, or empty."""
    beat: int = 0
    """Grows with each sign of life of the owner."""
    cancel_requested: bool = False
    started_at: float | None = None
    finished_at: float | None = None
    result: StoredResult | None = None
    problem: dict[str, Any] | None = None
    """Why a job has failed, as the problem that its caller gets (RFC 9457)."""
    webhook: Delivery | None = None

    @property
    def ended(self) -> bool:
        """Whether the job has reached a state that it never leaves."""
        return self.state in ENDED

    def has_expired(self, now: float) -> bool:
        """Return whether the job is over and no longer kept, though a sweeper may not have come."""
        return self.ended and self.expires_at <= now

    @property
    def kept_bytes(self) -> int:
        """The size of the files that are kept for it: its request, and after its end its result.

        Previews, which are small, are not counted.
        """
        if not self.ended:
            return self.request_bytes
        return 0 if self.result is None or self.result.key is None else self.result.size

    def with_progress(self, progress: Progress) -> "Job":
        """Return the job with ``progress``; its state follows from the stage."""
        if self.ended:
            return self
        state: State = progress.stage if progress.stage in ("queued", "starting") else "running"
        return replace(self, progress=progress, state=state)


def new_job_id() -> str:
    """Return an id that nobody can guess: 128 bits, in hex."""
    return secrets.token_hex(16)
