"""Calls wait for a store that is away, up to a limit, and the log says so now and then."""

import logging

import pytest

from serve.jobs.forecasts import patience
from serve.jobs.forecasts.patience import Outages, patiently
from serve.jobs.store.job_store import StoreUnavailable


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_S", 0)


async def test_a_call_is_made_until_the_store_is_back() -> None:
    away = [True, True]

    async def call() -> str:
        if away:
            away.pop()
            raise StoreUnavailable("away")
        return "done"

    assert await patiently(call, "j") == "done"
    assert not away


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0)

    async def call() -> str:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        await patiently(call, "j")


async def test_no_other_error_is_tried_again() -> None:
    calls: list[int] = []

    async def call() -> str:
        calls.append(1)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await patiently(call, "j")
    assert len(calls) == 1


def test_an_outage_is_survived_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages()
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        for _ in range(5):
            with outages.survived():
                raise StoreUnavailable("the disk is full")
    assert [record.getMessage() for record in caplog.records] == ["the store of jobs is unavailable: the disk is full"]


def test_no_other_error_is_survived() -> None:
    with pytest.raises(ValueError, match="wrong"), Outages().survived():
        raise ValueError("wrong")
