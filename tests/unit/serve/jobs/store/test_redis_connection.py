"""Work against a Redis that fails: when it is run again, and what its caller is told."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    WatchError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from serve.jobs.store import redis_connection
from serve.jobs.store.job_store import OutcomeUnknown, StoreUnavailable
from serve.jobs.store.redis_connection import RedisConnection
from serve.jobs.store.redis_store import RedisStore

NOBODY = "redis://127.0.0.1:1"


class Clock:
    """A clock that only pauses move. ``pauses`` are those that were made."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every connection of the test."""
    clock = Clock()
    monkeypatch.setattr(redis_connection, "time", clock)
    monkeypatch.setattr(redis_connection, "asyncio", clock)
    return clock


@pytest.fixture
async def connection() -> AsyncIterator[RedisConnection]:
    """A connection with a patience of 5 seconds, and to no server."""
    connection = RedisConnection(NOBODY, patience_s=5)
    yield connection
    await connection.close()


class Work:
    """Work that raises what is left of ``errors`` and then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.asked: list[bool] = []

    async def __call__(self, again: bool) -> str:
        self.asked.append(again)
        if self._errors:
            raise self._errors.pop(0)
        return "done"


@pytest.mark.parametrize(
    "error",
    [RedisConnectionError("x"), RedisTimeoutError("x"), OSError("x"), TimeoutError("x")],
    ids=lambda error: f"{type(error).__module__.split('.')[0]}.{type(error).__name__}",
)
async def test_work_that_got_no_answer_is_run_again_and_knows_that_it_may_be_done(
    connection: RedisConnection, clock: Clock, error: Exception
) -> None:
    work = Work(error, error, WatchError())
    assert await connection.run(work) == "done"
    assert work.asked == [False, True, True, True]
    assert clock.pauses == [0.02, 0.04]


PASSING = [ReadOnlyError("x"), BusyLoadingError("x"), MasterDownError("x"), ClusterDownError("x"), ResponseError("BUSY x")]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
async def test_work_that_was_refused_for_now_is_run_again_and_was_not_done(
    connection: RedisConnection, clock: Clock, error: RedisError
) -> None:
    work = Work(error, error)
    assert await connection.run(work) == "done"
    assert work.asked == [False, False, False]
    assert clock.pauses == [0.02, 0.04]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
async def test_a_refusal_that_lasts_has_changed_nothing_and_is_told_at_once_from_then_on(
    connection: RedisConnection, clock: Clock, error: RedisError
) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await connection.run(Work(*[error] * 1000))
    assert not isinstance(refused.value, OutcomeUnknown)
    assert 4.5 <= sum(clock.pauses) <= 5
    clock.pauses.clear()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await connection.run(Work(error))
    assert await connection.run(Work()) == "done"
    assert clock.pauses == []
    clock.now += redis_connection.LASTING_S
    assert await connection.run(Work(error)) == "done"


@pytest.mark.parametrize(
    "error", [ReadOnlyError("x"), OutOfMemoryError("x"), AuthenticationError("x")], ids=["read-only", "memory", "password"]
)
async def test_a_refusal_says_nothing_of_an_earlier_try_without_an_answer(
    connection: RedisConnection, clock: Clock, error: RedisError
) -> None:
    """A server may be lost after it has written, and another one refuse in its place."""
    work = Work(RedisConnectionError("cut"), *[error] * 1000)
    with pytest.raises(OutcomeUnknown):
        await connection.run(work)
    assert set(work.asked[1:]) == {True}


async def test_connections_are_made_anew_after_a_refusal(
    connection: RedisConnection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a primary leads to another server after it has failed."""
    closed: list[bool] = []

    async def disconnect(inuse_connections: bool = True) -> None:
        closed.append(inuse_connections)

    monkeypatch.setattr(connection.client.connection_pool, "disconnect", disconnect)
    assert await connection.run(Work(ReadOnlyError("x"), ReadOnlyError("x"))) == "done"
    assert closed == [False, False]


async def test_work_that_somebody_else_overtook_begins_anew_at_once(connection: RedisConnection, clock: Clock) -> None:
    """Nothing of it was done."""
    work = Work(WatchError(), WatchError())
    assert await connection.run(work) == "done"
    assert work.asked == [False, False, False]
    assert clock.pauses == []


async def test_nobody_knows_what_became_of_work_whose_answer_never_came(connection: RedisConnection, clock: Clock) -> None:
    work = Work(*[RedisConnectionError("the line is cut")] * 1000)
    with pytest.raises(OutcomeUnknown, match="Redis does not answer: the line is cut"):
        await connection.run(work)
    assert 4.5 <= sum(clock.pauses) <= 5
    assert clock.pauses == sorted(clock.pauses)
    assert max(clock.pauses) == 0.5
    assert len(work.asked) == len(clock.pauses) + 1


async def test_work_that_is_always_overtaken_ends_and_has_changed_nothing(connection: RedisConnection, clock: Clock) -> None:
    async def work(again: bool) -> None:
        clock.now += 1
        raise WatchError

    with pytest.raises(StoreUnavailable, match="Too many others change the same jobs in Redis") as refused:
        await connection.run(work)
    assert not isinstance(refused.value, OutcomeUnknown)
    assert clock.now <= 107


@pytest.mark.parametrize(
    "error",
    [AuthenticationError("x"), NoPermissionError("x"), OutOfMemoryError("x"), ResponseError("MISCONF"), ResponseError("x")],
    ids=["password", "permission", "memory", "disk", "another"],
)
async def test_what_does_not_pass_by_itself_is_told_at_once(
    connection: RedisConnection, clock: Clock, error: RedisError
) -> None:
    work = Work(error)
    with pytest.raises(StoreUnavailable) as refused:
        await connection.run(work)
    assert not isinstance(refused.value, OutcomeUnknown)
    assert (len(work.asked), clock.pauses) == (1, [])


async def test_failures_are_logged_now_and_then(
    connection: RedisConnection, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that fails has another text, since its caller must not learn of the server."""
    for _ in range(21):
        with pytest.raises(StoreUnavailable):
            await connection.run(Work(OutOfMemoryError("used memory > 'maxmemory'")))
        clock.now += 1
    assert len(caplog.messages) == 2
    assert "cannot be used: The memory of Redis is full: raise `maxmemory`" in caplog.messages[0]


async def test_a_mistake_of_ours_is_not_taken_for_a_store_that_is_away(connection: RedisConnection) -> None:
    with pytest.raises(KeyError):
        await connection.run(Work(KeyError("x")))


@pytest.mark.parametrize(
    ("memory", "warned"),
    [({"maxmemory_policy": "noeviction"}, False), ({}, False), ({"maxmemory_policy": "allkeys-lru"}, True)],
    ids=["noeviction", "not said", "allkeys-lru"],
)
async def test_a_server_that_may_drop_jobs_is_warned_of(
    connection: RedisConnection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    memory: dict[str, str],
    warned: bool,
) -> None:
    async def info(section: str) -> dict[str, str]:
        return memory

    monkeypatch.setattr(connection.client, "info", info)
    with caplog.at_level(logging.WARNING):
        await connection.open()
    assert ("maxmemory-policy is allkeys-lru. Set it to noeviction." in caplog.text) == warned


def test_no_call_waits_longer_for_an_answer_than_the_caller_is_patient() -> None:
    def waits(patience_s: float) -> tuple[Any, ...]:
        options = RedisConnection(NOBODY, patience_s=patience_s).client.connection_pool.connection_kwargs
        return options["socket_timeout"], options["socket_connect_timeout"]

    assert waits(0.2) == (0.2, 0.2)
    assert waits(5) == waits(300) == (2.0, 2.0)


async def test_an_address_without_a_server_is_unavailable() -> None:
    store = RedisStore("redis://127.0.0.1:1", patience_s=0.1)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await store.open()
    await store.close()
