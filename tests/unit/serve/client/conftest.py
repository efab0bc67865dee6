"""Fixtures of the tests of both clients."""

from types import SimpleNamespace
from typing import Any

import pytest

from serve.client import AsyncClient, Client, retries
from serve.client.flow import Pause
from tests.unit.serve.client.both_clients import Awaited, Blocking, Kind


@pytest.fixture(params=[Blocking, Awaited])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which take no time but that of a clock that they move."""
    made: list[float] = []

    def pause(client: Any, pause: Pause) -> None:
        made.append(pause.seconds)
        if client._on_retry is not None and pause.reason:
            client._on_retry(pause.reason)

    async def later(client: Any, operation: Pause) -> None:
        pause(client, operation)

    monkeypatch.setattr(Client, "_pause", pause)
    monkeypatch.setattr(AsyncClient, "_pause", later)
    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=lambda: sum(made)))
    return made
