"""The changes that Redis makes by itself, each tried with a server and its keys alone."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from serve.jobs.store.redis_scripts import BEAT, COUNT, CREATE, SPEND
from tests.unit.serve.jobs.redis_server import RedisServer


class Keys:
    """A server's keys below a prefix of the test's own."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.asyncio.Redis.from_url(url, decode_responses=True)
        self._prefix = f"{secrets.token_hex(4)}:"

    def of(self, name: str) -> str:
        """Return the name of a key."""
        return self._prefix + name

    async def run(self, script: str, *names: str, args: tuple[object, ...]) -> Any:
        """Return what a script answers."""
        return await self.client.eval(script, len(names), *map(self.of, names), *args)


@pytest.fixture
async def keys(redis_server: RedisServer) -> AsyncIterator[Keys]:
    """Keys of which there is none yet."""
    keys = Keys(redis_server.url)
    yield keys
    await keys.client.aclose()


async def test_a_caller_who_keeps_nothing_any_more_is_forgotten(keys: Keys) -> None:
    for caller, change in (("ann", 100), ("bob", 7), ("ann", 20), ("ann", -120)):
        await keys.run(COUNT, "kept", "total", args=(caller, change))
    assert await keys.client.hgetall(keys.of("kept")) == {"bob": "7"}
    assert await keys.client.get(keys.of("total")) == "7"
    await keys.run(COUNT, "kept", "total", args=("bob", -8))
    assert await keys.client.hgetall(keys.of("kept")) == {}


async def test_only_jobs_that_the_owner_holds_in_that_attempt_get_a_beat(keys: Keys) -> None:
    jobs = {"a": ("one", 1), "b": ("two", 1), "c": ("one", 2), "d": ("", 1)}
    for name, (owner, attempt) in jobs.items():
        await keys.client.hset(
            keys.of(name), mapping={"owner": owner, "attempt": attempt, "record": f"record of {name}", "beat": 5}
        )
    asked = ("one", keys.of(""), "a", 1, "b", 1, "c", 1, "d", 1, "gone", 1)
    assert await keys.run(BEAT, args=asked) == ["a", "record of a"]
    assert {name: await keys.client.hget(keys.of(name), "beat") for name in jobs} == {"a": "6", "b": "5", "c": "5", "d": "5"}
    assert not await keys.client.exists(keys.of("gone"))
    assert await keys.run(BEAT, args=("one", keys.of(""))) == []


async def test_no_more_is_spent_than_is_allowed_and_the_count_goes_by_itself(keys: Keys) -> None:
    assert [await keys.run(SPEND, "minute", args=(2, 180)) for _ in range(4)] == [1, 2, 0, 0]
    assert await keys.client.get(keys.of("minute")) == "2"
    assert 0 < await keys.client.ttl(keys.of("minute")) <= 180
    assert await keys.run(SPEND, "none", args=(0, 180)) == 0
    assert not await keys.client.exists(keys.of("none"))


NAMES = ("job", "events", "key", "queued", "all", "number", "active", "turns", "kept", "total", "until")


async def create(keys: Keys, *, change: bool = True, kept: int = 0, most: tuple[int, int, int] = (-1, -1, -1)) -> Any:
    look = 0 if change else 1
    turn = '"ann",false,""]'
    fixed = ("id", 100, 9, keys.of("job:"), 1, "the event", turn, "ann", kept, *most, look)
    return await keys.run(CREATE, *NAMES, args=(*fixed, "record", "the record", "beat", 0, "state", "queued"))


async def test_a_job_is_found_by_all_that_it_has_in_common_with_others(keys: Keys) -> None:
    assert await create(keys, kept=40) == ["made"]
    assert await keys.client.hgetall(keys.of("job")) == {
        "number": "1", "events": "1", "record": "the record", "beat": "0", "state": "queued",
    }  # fmt: skip
    assert await keys.client.xrange(keys.of("events")) == [("1-0", {"event": "the event"})]
    assert await keys.client.get(keys.of("key")) == "id"
    for name in ("queued", "all"):
        assert await keys.client.zrange(keys.of(name), 0, -1, withscores=True) == [("id", 1.0)]
    assert await keys.client.smembers(keys.of("active")) == {"id"}
    assert await keys.client.hgetall(keys.of("turns")) == {"id": '[1,"ann",false,""]'}
    assert (await keys.client.hgetall(keys.of("kept")), await keys.client.get(keys.of("total"))) == ({"ann": "40"}, "40")
    # Run again, it finds what it made, and counts nothing twice.
    assert await create(keys, kept=40) == ["there", "the record", "0"]
    assert await keys.client.get(keys.of("total")) == "40"


@pytest.mark.parametrize(
    ("most", "change", "answer"),
    [((-1, -1, -1), False, ["room"]), ((39, -1, -1), True, ["kept", 0, ""]), ((-1, -1, 39), True, ["all kept"])],
    ids=["a look", "the caller keeps too much", "all keep too much"],
)
async def test_a_job_that_is_not_made_leaves_no_key(
    keys: Keys, most: tuple[int, int, int], change: bool, answer: list[Any]
) -> None:
    assert await create(keys, kept=40, most=most, change=change) == answer
    assert await keys.client.exists(*map(keys.of, NAMES)) == 0
