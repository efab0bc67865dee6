"""The Runner as others call it: a Serve handle whose losses have one name."""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from ray.serve.handle import DeploymentHandle

from deployments.flow_control import ProducerEnd
from serve.jobs.results.outcome import Outcome
from serve.pipelines.attempts import is_lost_replica

T = TypeVar("T")


class RunnerLost(Exception):
    """The Runner replica that had the call is gone, or none could be reached."""


class Runs(Protocol):
    """Anything that runs jobs as ``JobRunner.run`` does. Raises RunnerLost."""

    async def __call__(
        self, job_id: str, request: bytes | None, *, waiter: ProducerEnd | None, known_beat: int | None
    ) -> Outcome | None:
        """Run a job to its end."""


class RunnerHandle:
    """Calls whichever Runner replica is free."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle.options(stream=False)

    async def __call__(
        self, job_id: str, request: bytes | None, *, waiter: ProducerEnd | None, known_beat: int | None
    ) -> Outcome | None:
        """Run a job to its end.

        Cancelling the call cancels it in the Runner, too, if ``waiter`` waits for the job. Any
        other one goes on there: this process ends, and the job outlives it.
        """
        response: Any = self._handle.run.remote(job_id, request, waiter=waiter, known_beat=known_beat)
        try:
            outcome: Outcome | None = await response
        except asyncio.CancelledError:
            if waiter is not None:
                response.cancel()
            raise
        except Exception as error:
            if is_lost_replica(error):
                raise RunnerLost(repr(error)) from error
            raise
        return outcome


def detached(work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Return a task that outlives the request in which it is made.

    Serve cancels the calls that a request has made when the request ends. It finds them by a
    context variable, which the task does not have.
    """
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())
