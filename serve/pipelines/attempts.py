"""Retries: a request whose replica dies is started once more, with the same seed."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import ray.exceptions
from ray.serve.exceptions import ReplicaUnavailableError

from deployments.errors import Cancelled, GpuLost
from serve.pipelines.context import RequestContext
from serve.pipelines.result import Result

logger = logging.getLogger("ray.serve")

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


async def run_attempts(
    run: Callable[[], Awaitable[Result]], context: RequestContext, *, name: str, attempts: int = ATTEMPTS
) -> Result:
    """Return the result of ``run``, called up to ``attempts`` times if replicas are lost."""
    attempt = 1
    while True:
        context.meter.clear()
        try:
            return replace(await run(), attempts=attempt)
        except Exception as error:
            if attempt == attempts or not is_lost_replica(error):
                raise
            logger.warning("%s: a replica was lost (%s); trying again", name, type(error).__name__)
        attempt += 1


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
