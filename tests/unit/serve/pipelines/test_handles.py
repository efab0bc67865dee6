"""Calls through handles, where a queue is full."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.serve.exceptions import BackPressureError

from serve import graph
from serve.graph import Graph
from serve.meter import Meter
from serve.readiness import Readiness


class FullTwice:
    """A handle whose queue has room at the third call."""

    calls = 0

    def remote(self, *_: object) -> Any:
        self.calls += 1
        full = self.calls < 3

        async def answer() -> Any:
            if full:
                raise BackPressureError(num_queued_requests=9, max_queued_requests=8)
            return SimpleNamespace(seconds=0.5)

        return answer()


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> FullTwice:
    monkeypatch.setattr(graph, "FULL_S", 0.01)
    monkeypatch.setattr(graph, "WindowOwner", SimpleNamespace)  # the real one is an actor: it would start a Ray in this process
    return FullTwice()


def calls_of(handle: FullTwice) -> Graph:
    return Graph(cast(Any, {"face-swapper": SimpleNamespace(swap=handle, identify=handle)}), cast(Readiness, None), 4)


async def test_a_request_at_work_does_not_fail_for_a_full_queue(handle: FullTwice) -> None:
    """Minutes of a video model's work would be lost with it."""
    meter = Meter({})
    result = await calls_of(handle).call("face-swapper", "swap", meter=meter, waits=False)
    assert (result.seconds, handle.calls) == (0.5, 3)


async def test_a_request_that_would_wait_is_refused(handle: FullTwice) -> None:
    with pytest.raises(BackPressureError):
        await calls_of(handle).call("face-swapper", "identify", meter=Meter({}))
    assert handle.calls == 1
