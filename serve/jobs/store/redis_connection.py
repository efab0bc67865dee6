"""A connection to Redis that outlives a restart of the server."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,  # noqa: A004
    ReadOnlyError,
    RedisError,
    TimeoutError,  # noqa: A004
    WatchError,
)

from serve.jobs.store.job_store import OutcomeUnknown, StoreUnavailable

T = TypeVar("T")
logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long a call waits for a server that does not answer."""
ANSWER_S = 2.0
"""How long a call waits for one answer."""
CONNECTIONS = 64
PAUSE_S = (0.02, 0.5)
"""The first pause between two tries, and the longest one."""


class RedisConnection:
    """Runs work against a server, again and again until it succeeds or patience ends.

    Work that is run again must see for itself whether it was done already: a connection can be lost
    between a change and its answer. All of it runs in one event loop.
    """

    def __init__(self, url: str, *, password: str | None = None, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
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

        Raises StoreUnavailable if the server refuses, and OutcomeUnknown if it gives no answer for
        ``patience_s``: it may read what it was sent later.
        """
        deadline = time.monotonic() + self._patience_s
        pause = PAUSE_S[0]
        again = False
        while True:
            try:
                return await work(again)
            except WatchError:  # somebody else was faster, so somebody gets on
                if time.monotonic() > deadline:
                    raise StoreUnavailable("Too many others change the same jobs in Redis.") from None
            except (AuthenticationError, AuthorizationError) as error:
                raise StoreUnavailable(f"Redis refuses the service: {error}.") from error
            except (ConnectionError, TimeoutError, ReadOnlyError, OSError) as error:
                if time.monotonic() + pause > deadline:
                    raise OutcomeUnknown(f"Redis does not answer: {error}.") from error
                again = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_S[1])
            except RedisError as error:  # its memory or its disk is full, for instance
                raise StoreUnavailable(f"Redis refuses a call: {error}.") from error
