"""What the errors of the store of jobs mean to a caller."""

from collections.abc import Iterator
from contextlib import contextmanager

from serve.http.callers.quotas import queue_full
from serve.jobs.store.job_store import KeyReused, QueueFull, StoreUnavailable
from serve.problems import invalid_header, unavailable


@contextmanager
def store_problems() -> Iterator[None]:
    """Raise a problem in place of an error of the store."""
    try:
        yield
    except StoreUnavailable as error:
        raise unavailable("the store of jobs cannot be reached now; try again", retry_after_s=5) from error
    except KeyReused as reused:
        differs = " and another ".join(reused.differs or ("body",))
        detail = f"this key stands for a request with another {differs}: send a new key with each new request"
        raise invalid_header("Idempotency-Key", detail) from None
    except QueueFull as full:
        raise queue_full(full.queued, full.retry_after_s) from None
