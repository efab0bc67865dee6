"""What one caller may ask for: requests a minute, and requests that wait."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

from starlette.requests import Request

from serve.http.answer_headers import add_to_answer
from serve.jobs.store.job_store import JobStore, Spent
from serve.jobs.store.limits import KeptFull
from serve.problems import Problem

POLICY = "requests"
"""The name of the quota in the RateLimit headers."""
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("bytes", 1))


class Quotas:
    """Counts the requests of each caller, over all replicas of the ingress.

    ``per_minute`` is None if the number of requests is not limited.
    """

    def __init__(self, store: JobStore, *, per_minute: int | None, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._per_minute = per_minute
        self._now = now

    async def count(self, caller: str, request: Request) -> None:
        """Count a request; its answer, whatever that is, gets headers that say what is left.

        Raises a 429 problem if the caller has used up its quota, and StoreUnavailable.
        """
        if self._per_minute is None:
            return
        spent = await self._store.spend(caller, per_minute=self._per_minute, now=self._now())
        add_to_answer(request, _rate_limit(spent, self._per_minute))
        if not spent.allowed:
            detail = (
                f"you may send {self._per_minute} requests a minute, and have sent them: try again in {_whole(spent.reset_s)} s"
            )
            raise Problem(429, "quota", detail, headers={"Retry-After": str(_whole(spent.reset_s))})


def queue_full(queued: int, retry_after_s: float) -> Problem:
    """Return a 429 for a caller that has ``queued`` jobs waiting, which is as many as it may."""
    detail = f"{queued} jobs of yours are waiting, which is as many as one caller may have: wait until one has started"
    return Problem(429, "quota", detail, headers={"Retry-After": str(_whole(retry_after_s))})


def kept_full(full: KeptFull) -> Problem:
    """Return a 429 for a caller whose jobs keep as many bytes as they may."""
    name, unit = next((name, unit) for name, unit in _UNITS if full.limit >= unit)
    size = f"{full.kept / unit:.1f}" if unit > 1 else f"{full.kept}"
    kept = f"your jobs keep {size} of {full.limit / unit:.4g} {name}"
    if full.until is None:
        detail = f"{kept} and none of them has ended: wait for them, or cancel some (DELETE /jobs/{{id}})"
        return Problem(429, "quota", detail, headers={"Retry-After": str(_whole(full.retry_after_s))})
    expiry = datetime.fromtimestamp(math.ceil(full.until), UTC).isoformat().replace("+00:00", "Z")
    detail = f"{kept}: delete some (DELETE /jobs/{{id}}); the oldest expires at {expiry}"
    return Problem(429, "quota", detail, headers={"Retry-After": str(_whole(full.until - time.time()))})


def _rate_limit(spent: Spent, per_minute: int) -> dict[str, str]:
    """Return the headers of the IETF's draft "RateLimit header fields for HTTP"."""
    return {
        "RateLimit-Policy": f'"{POLICY}";q={per_minute};w=60',
        "RateLimit": f'"{POLICY}";r={spent.remaining};t={_whole(spent.reset_s)}',
    }


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
