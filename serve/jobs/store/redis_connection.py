"""A connection to Redis that outlives a restart of the server."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError

from serve.jobs.store.job_store import UNREACHABLE, OutcomeUnknown, StoreUnavailable
from serve.jobs.store.redis_refusals import Refusal, refusal_of

T = TypeVar("T")
logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long a call waits for a server that does not answer."""
ANSWER_S = 2.0
"""How long a call waits for one answer."""
CONNECTIONS = 64
PAUSE_S = (0.02, 0.5)
"""The first pause between two tries, and the longest one."""
LASTING_S = 30.0
"""How long a refusal that outlasted a call's patience is taken to last: others are told at once."""
LOGGED_S = 10.0
"""The log has at most one failure in so many seconds."""


class RedisConnection:
    """Runs work against a server, again and again until it succeeds or patience ends.

    Work that is run again must see for itself whether it was done already: a connection can be lost
    between a change and its answer. All of it runs in one event loop.
    """

    def __init__(self, url: str, *, password: str | None = None, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._lasts_until = self._logged_at = float("-inf")
        answer_s = min(ANSWER_S, patience_s)
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            **({} if password is None else {"password": password}),
            max_connections=CONNECTIONS,
            timeout=patience_s,
            socket_timeout=answer_s,
            socket_connect_timeout=answer_s,
            retry=Retry(NoBackoff(), 0),  # the tries are counted below
            decode_responses=True,
        )
        self.client: Any = redis.asyncio.Redis.from_pool(pool)

    async def open(self) -> None:
        """Connect, and warn of a server that may drop jobs. Raises StoreUnavailable."""
        memory = await self.run(lambda _: self.client.info("memory"))
        if memory.get("maxmemory_policy", "noeviction") != "noeviction":
            logger.warning(
                "Redis may drop jobs when its memory is full: maxmemory-policy is %s. Set it to noeviction.",
                memory["maxmemory_policy"],
            )

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()

    async def run(self, work: Callable[[bool], Awaitable[T]]) -> T:
        """Return what ``work`` returns, with whether an earlier try may have done it already.

        Raises StoreUnavailable if the server refuses, at once where that does not pass by itself,
        and OutcomeUnknown if a try got no answer: the server may read what it was sent later.
        """
        deadline = time.monotonic() + self._patience_s
        pause = PAUSE_S[0]
        again = False
        refusal: Refusal | None = None
        while True:
            try:
                if refusal is not None:  # another server may be behind the same name by now
                    await self.client.connection_pool.disconnect(inuse_connections=False)
                return await work(again)
            except WatchError as error:  # somebody else was faster, so somebody gets on
                if time.monotonic() > deadline:
                    raise self._failure("Too many others change the same jobs in Redis.", again) from error
                continue
            except (RedisError, OSError) as error:
                refusal = refusal_of(error)
                again = again or refusal is None
                lasts = refusal is not None and (not refusal.passes or time.monotonic() < self._lasts_until)
                if lasts or time.monotonic() + pause > deadline:
                    if refusal is None:
                        raise self._failure(f"Redis does not answer: {error}.", again) from error
                    if refusal.passes and not lasts:
                        self._lasts_until = time.monotonic() + LASTING_S
                    raise self._failure(refusal.text, again, refusal.told) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_S[1])

    def _failure(self, text: str, unanswered: bool, told: str = UNREACHABLE) -> StoreUnavailable:
        """Return the error of a call; ``unanswered`` says whether one of its tries got no answer.

        It is logged now and then: the caller of a request does not learn it.
        """
        if time.monotonic() > self._logged_at + LOGGED_S:
            self._logged_at = time.monotonic()
            logger.warning("The store of jobs cannot be used: %s", text)
        return OutcomeUnknown(text, told=told) if unanswered else StoreUnavailable(text, told=told)
