"""What a call of the Runner does when it is cancelled, or when its replica is lost."""

import asyncio
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from serve.jobs.runner_handle import RunnerHandle, RunnerLost


class Response:
    """A response of a Serve handle that never comes, or that is an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.cancelled = False
        self.awaited = asyncio.Event()
        self._error = error

    def __await__(self) -> Generator[Any, None, Any]:
        self.awaited.set()
        if self._error is not None:
            raise self._error
        return asyncio.Event().wait().__await__()

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """A Serve handle whose method `run` gives one response."""

    def __init__(self, response: Response) -> None:
        self.run = SimpleNamespace(remote=lambda *_, **__: response)

    def options(self, **_: object) -> "Handle":
        return self


@pytest.mark.parametrize("waits", [True, False], ids=["its caller left", "this process ends"])
async def test_only_a_job_that_somebody_waits_for_ends_with_the_call(waits: bool) -> None:
    """A redeployed ingress replica closes its desk, and the jobs that it has accepted go on."""
    response, waiter = Response(), object()
    call = asyncio.ensure_future(RunnerHandle(Handle(response))("id", None, waiter=waiter if waits else None, known_beat=None))  # type: ignore[arg-type]
    await response.awaited.wait()
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    assert response.cancelled == waits


async def test_a_lost_replica_has_one_name() -> None:
    with pytest.raises(RunnerLost):
        await RunnerHandle(Handle(Response(ActorDiedError())))("id", None, waiter=None, known_beat=None)  # type: ignore[arg-type]


async def test_any_other_error_is_passed_on() -> None:
    with pytest.raises(ValueError, match="wrong"):
        await RunnerHandle(Handle(Response(ValueError("wrong"))))("id", None, waiter=None, known_beat=None)  # type: ignore[arg-type]
