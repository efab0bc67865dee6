"""What a call does, apart from how its requests are sent.

A flow is a generator that yields operations and is sent their results, so that the blocking and the
asynchronous client share every decision: what is sent, what is sent again, and when to give up. It
has at most one stream open: whatever follows a Read, but for another one and an Emit, closes it.
"""

from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Send:
    """Send a request; its result is an ``httpx.Response``.

    The body has been read, unless ``stream`` is set and the status is not an error. ``options`` are
    those of ``httpx.Client.build_request``.
    """

    method: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)
    stream: bool = False


@dataclass(frozen=True)
class Read:
    """Wait for bytes of the open stream; its result is empty at the end."""


@dataclass(frozen=True)
class Pause:
    """Wait before another attempt; ``reason`` says why."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class Emit:
    """Hand a value to the caller who iterates over the flow."""

    value: Any


Operation = Send | Read | Pause | Emit
Flow = Generator[Operation, Any, T]


class Steps(Generic[T]):
    """A flow that is being carried out. ``operation`` is the next one, or None at the end."""

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow
        self.operation: Operation | None = None
        self._result: list[T] = []
        self.reply(None)

    def reply(self, value: Any) -> None:
        """Go on with the result of the operation."""
        try:
            self.operation = self._flow.send(value)
        except StopIteration as e:
            self._end(e.value)

    def fail(self, error: Exception) -> None:
        """Go on with the failure of the operation, which ends a flow that does not expect it."""
        try:
            self.operation = self._flow.throw(error)
        except StopIteration as e:
            self._end(e.value)

    def close(self) -> None:
        """End the flow early."""
        self._flow.close()

    @property
    def result(self) -> T:
        """What the flow has returned."""
        return self._result[0]

    def _end(self, value: T) -> None:
        self.operation = None
        self._result.append(value)


class Stream:
    """The bytes of a streamed response, as they came over the network."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks: Iterator[bytes] | None = None
        self._later_chunks: AsyncIterator[bytes] | None = None

    def read(self) -> bytes:
        """Return some bytes, none at the end."""
        if self._chunks is None:
            self._chunks = self._response.iter_raw()
        return next(self._chunks, b"")

    async def aread(self) -> bytes:
        """Return some bytes, none at the end."""
        if self._later_chunks is None:
            self._later_chunks = self._response.aiter_raw()
        return await anext(self._later_chunks, b"")

    def close(self) -> None:
        """Close the connection if there is more to come."""
        self._response.close()

    async def aclose(self) -> None:
        """Close the connection if there is more to come."""
        await self._response.aclose()
