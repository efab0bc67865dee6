"""The memory that answers occupy until their callers have read them, in one proxy."""

import asyncio
import socket
import sys
from collections import Counter
from typing import Protocol

from serve.http.reports.problem_log import logger

BUSY_STALL_S = 1.0
"""Seconds without progress after which an answer may be cut off if all of them are too large."""
UNSENT_BYTES = 2**17
"""Bytes of an answer that the system holds beyond what the client has room for. It would take some
4 MiB for each connection, which no budget here could count."""
_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)  # of Linux; Python names it from 3.12 on
_CHECK_S = 0.2
"""Seconds between two looks for such answers, while all of them are too large."""


class UnreadAnswer(Protocol):
    """A connection whose caller has an answer to read."""

    def unread_bytes(self) -> int:
        """Return how much of the answer the caller has not read, wherever it is now."""

    def caller(self) -> str:
        """Return the caller's network."""

    def cut_off(self) -> None:
        """Close the connection at once."""


class UnreadAnswers:
    """A budget of ``capacity`` bytes for all answers that wait to be read.

    A connection is here from the moment at which its caller does not keep up until it does. Beyond
    the budget, the caller with the largest share loses the answer that has waited longest. One that
    made progress within ``BUSY_STALL_S`` is spared, so that no fast reader is cut off.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._since: dict[UnreadAnswer, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since)

    def add(self, answer: UnreadAnswer) -> None:
        """Count an answer whose caller does not keep up."""
        self._since[answer] = asyncio.get_running_loop().time()
        if self._timer is None:
            self._check()

    def discard(self, answer: UnreadAnswer) -> None:
        """Stop counting an answer: its caller keeps up, or its connection has ended."""
        self._since.pop(answer, None)

    def _check(self) -> None:
        """Cut answers off until the others are within the budget; look again if they are not."""
        loop = asyncio.get_running_loop()
        self._timer = None
        sizes = {answer: answer.unread_bytes() for answer in self._since}
        while sum(sizes.values()) > self._capacity:
            shares: Counter[str] = Counter()
            for answer, size in sizes.items():
                shares[answer.caller()] += size
            stalled = [answer for answer in sizes if loop.time() - self._since[answer] >= BUSY_STALL_S]
            if not stalled:
                self._timer = loop.call_later(_CHECK_S, self._check)
                return
            worst = min(stalled, key=lambda answer: (-shares[answer.caller()], self._since[answer]))
            logger.warning(
                "a connection was closed because its caller did not read an answer: %d bytes of it were left, and all such "
                "answers are over proxy.max_unread_bytes, %d bytes",
                sizes.pop(worst),
                self._capacity,
            )
            self.discard(worst)
            worst.cut_off()


def limit_unsent(transport: asyncio.BaseTransport) -> None:
    """Leave what a client does not read to this process, which counts it, where the system can."""
    if sys.platform == "linux":
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT_BYTES)
