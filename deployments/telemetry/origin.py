"""Where a call comes from: the request, the job and the trace that it belongs to.

An origin is current in the context of the code that works for it. It crosses to other replicas as
an argument of each call, since Serve passes on the request's id only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """The ids of a request and of its job, and the `traceparent` of the span that is open.

    Each is empty where there is none.
    """

    request_id: str = ""
    job_id: str = ""
    trace: str = ""


NOWHERE = Origin()
_current: ContextVar[Origin] = ContextVar("ryla_origin", default=NOWHERE)


def current_origin() -> Origin:
    """Return the origin of the code that calls this."""
    return _current.get()


@contextmanager
def working_for(origin: Origin) -> Iterator[None]:
    """Make ``origin`` the current one within the block."""
    token = _current.set(origin)
    try:
        yield
    finally:
        _current.reset(token)


def work_for(origin: Origin) -> None:
    """Make ``origin`` the current one from now on, in a context that ends with the call.

    An asynchronous generator cannot use ``working_for``: it may be closed in another context.
    """
    _current.set(origin)
