"""What one caller may ask for: requests a minute, and requests that wait."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

from starlette.requests import Request

from serve.http.answer_headers import add_to_answer
from serve.jobs.store.job_store import JobStore, Spent
from serve.jobs.store.limits import KeptFull, RequestTooLarge
from serve.problems import Problem, over_quota

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
            raise over_quota(detail, spent.reset_s)


def queue_full(queued: int, retry_after_s: float) -> Problem:
    """Return a 429 for a caller that has ``queued`` jobs waiting, which is as many as it may."""
    detail = f"{queued} jobs of yours are waiting, which is as many as one caller may have: wait until one has started"
    return over_quota(detail, retry_after_s)


def kept_full(full: KeptFull) -> Problem:
    """Return a 429 for a caller whose jobs keep as many bytes as they may."""
    kept = f"your jobs keep {_share(full.kept, full.limit)}"
    if full.until is None:
        detail = f"{kept} and none of them has ended: wait for them, or cancel some (DELETE /jobs/{{id}})"
        return over_quota(detail, full.retry_after_s)
    expiry = datetime.fromtimestamp(math.ceil(full.until), UTC).isoformat().replace("+00:00", "Z")
    detail = f"{kept}: delete some (DELETE /jobs/{{id}}); the oldest expires at {expiry}"
    return over_quota(detail, full.until - time.time())


def too_large(request: RequestTooLarge) -> Problem:
    """Return a 413 for a request for which a caller has no room, even without any other job."""
    detail = f"the request takes {_share(request.size, request.limit)} that the files of your jobs may have: send smaller files"
    return Problem(413, "body-too-large", detail)


def _share(size: int, limit: int) -> str:
    name, unit = next((name, unit) for name, unit in _UNITS if limit >= unit)
    return f"{size / unit:.1f} of {limit / unit:.4g} {name}" if unit > 1 else f"{size} of {limit} {name}"


def _rate_limit(spent: Spent, per_minute: int) -> dict[str, str]:
    """Return the headers of the IETF's draft "RateLimit header fields for HTTP"."""
    return {
        "RateLimit-Policy": f'"{POLICY}";q={per_minute};w=60',
        "RateLimit": f'"{POLICY}";r={spent.remaining};t={_whole(spent.reset_s)}',
    }


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
