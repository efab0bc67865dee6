"""A request is started once more if a replica was lost, and only then."""

import logging
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, RayTaskError, WorkerCrashedError

from deployments.errors import Cancelled, NoFaceFound, RequestRefused
from serve.pipelines import attempts
from serve.pipelines.attempts import causes, is_lost_replica, run_attempts
from serve.pipelines.context import RequestContext
from serve.pipelines.result import Result
from tests.unit.serve.pipelines.request_builders import make_context

RESULT = Result(b"file", "video/mp4", 1)


class Flaky:
    """A pipeline that fails once with each of ``errors`` and then succeeds.

    Each call reports a second of work.
    """

    def __init__(self, context: RequestContext, *errors: Exception) -> None:
        self._meter = context.meter
        self._errors = list(errors)
        self.calls = 0

    async def __call__(self) -> Result:
        self.calls += 1
        self._meter.add_work("wan26", 1)
        if self._errors:
            raise self._errors.pop(0)
        return RESULT


def wrapped(error: Exception) -> RayTaskError:
    """Return ``error`` as Ray passes it on from a replica."""
    make: Any = RayTaskError
    wrapped_error: RayTaskError = make("generate", "Traceback of the replica", error, proctitle="", pid=1, ip="10.0.0.1")
    return wrapped_error


async def test_a_lost_replica_costs_an_attempt_but_no_money(caplog: pytest.LogCaptureFixture) -> None:
    context = make_context()
    run = Flaky(context, ActorDiedError())
    attempts.logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING, "ray.serve"):
            result = await run_attempts(run, context, name="wan2.6")
    finally:
        attempts.logger.removeHandler(caplog.handler)
    assert (result.attempts, result.data) == (2, b"file")
    assert context.meter.execution_s == 1, "the failed attempt is not charged"
    assert "wan2.6: a replica was lost (ActorDiedError)" in caplog.text


async def test_a_request_that_succeeds_at_once_is_run_once() -> None:
    run = Flaky(context := make_context())
    assert (await run_attempts(run, context, name="wan2.6")).attempts == 1
    assert run.calls == 1


async def test_a_second_lost_replica_ends_the_request() -> None:
    context = make_context()
    run = Flaky(context, ActorDiedError(), WorkerCrashedError())
    with pytest.raises(WorkerCrashedError):
        await run_attempts(run, context, name="wan2.6")
    assert run.calls == attempts.ATTEMPTS == 2


async def test_a_request_that_is_at_fault_is_not_tried_again() -> None:
    context = make_context()
    run = Flaky(context, NoFaceFound("face", "no face found"))
    with pytest.raises(NoFaceFound):
        await run_attempts(run, context, name="wan2.6")
    assert run.calls == 1


@pytest.mark.parametrize(
    "error", [ActorDiedError(), WorkerCrashedError(), ObjectLostError("00", None, ""), Cancelled("the consumer is gone")]
)
def test_a_lost_replica_is_recognised_also_inside_rays_own_error(error: Exception) -> None:
    assert is_lost_replica(error)
    assert is_lost_replica(wrapped(error))


def test_a_fault_of_the_code_does_not_count_as_a_lost_replica() -> None:
    assert not is_lost_replica(RuntimeError("a bug"))
    assert not is_lost_replica(wrapped(RuntimeError("a bug")))


def test_causes_are_listed_from_the_outside_without_what_only_has_a_traceback() -> None:
    inner = RequestRefused("image", "too small")
    assert list(causes(wrapped(inner))) == [inner]
    assert list(causes(wrapped(wrapped(inner)))) == [inner]
    of_ray = ActorDiedError()
    assert list(causes(of_ray)) == [of_ray]
