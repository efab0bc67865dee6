"""Which failures are those of a lost replica, after which a request is started once more."""

from collections.abc import Iterator

import ray.exceptions
from ray.serve.exceptions import ReplicaUnavailableError

from deployments.errors import Cancelled, GpuLost

ATTEMPTS = 2
"""The number of times that a request is started whose caller waits for it."""

LOST = (
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,  # Ray ends a process when its node runs out of memory
    ray.exceptions.RayActorError,
    ray.exceptions.RaySystemError,  # the connection to Ray's own processes is lost
    ray.exceptions.RpcError,
    ray.exceptions.WorkerCrashedError,
    ReplicaUnavailableError,
    Cancelled,
    GpuLost,
)
"""The errors that a call raises if the replica or the connection to it is lost."""


def is_lost_replica(error: BaseException) -> bool:
    """Return whether a replica failed and not the request, so that another attempt may succeed."""
    return any(isinstance(cause, LOST) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and the errors that Ray has wrapped in it, outermost first.

    What Ray raises for an error of a replica is left out: it is of the error's class, too, but its
    text is the whole traceback of the replica.
    """
    current: BaseException | None = error
    while current is not None:
        cause = getattr(current, "cause", None)
        if not (isinstance(current, ray.exceptions.RayTaskError) and isinstance(cause, BaseException)):
            yield current
        current = cause if isinstance(cause, BaseException) else None
