"""The failures of a lost replica are told from those of a request."""

from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, RayTaskError, WorkerCrashedError

from deployments.errors import Cancelled, RequestRefused
from serve.pipelines.attempts import causes, is_lost_replica


def wrapped(error: Exception) -> RayTaskError:
    """Return ``error`` as Ray passes it on from a replica."""
    make: Any = RayTaskError
    wrapped_error: RayTaskError = make("generate", "Traceback of the replica", error, proctitle="", pid=1, ip="10.0.0.1")
    return wrapped_error


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
