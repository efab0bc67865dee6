"""What the errors of the store of jobs mean to a caller."""

from collections.abc import Iterator
from contextlib import contextmanager

from serve.http.callers.quotas import kept_full, queue_full, too_large
from serve.jobs.store.job_store import KeyReused, StoreUnavailable
from serve.jobs.store.limits import KeptFull, QueueFull, RequestTooLarge, ServiceFull, StorageFull
from serve.problems import invalid_header, unavailable


@contextmanager
def store_problems() -> Iterator[None]:
    """Raise a problem in place of an error of the store."""
    try:
        yield
    except StoreUnavailable as error:
        raise unavailable(f"the store of jobs {error.told}", retry_after_s=5) from error
    except KeyReused as reused:
        differs = " and another ".join(reused.differs or ("body",))
        detail = f"this key stands for a request with another {differs}: send a new key with each new request"
        raise invalid_header("Idempotency-Key", detail) from None
    except QueueFull as full:
        raise queue_full(full.queued, full.retry_after_s) from None
    except RequestTooLarge as large:
        raise too_large(large) from None
    except KeptFull as full:
        raise kept_full(full) from None
    except ServiceFull as full:
        raise unavailable(f"the queue is full: {full.queued} jobs are waiting; try again later", full.retry_after_s) from None
    except StorageFull as full:
        raise unavailable(f"{full}; try again later, or send a plain POST of up to 1 MiB", full.retry_after_s) from None
