"""The open connections of the proxy, in the order in which they make room for others.

A flood opens connections as fast as it can, and each may have to close another one. So this order
is kept up to date as connections come, change and go, and no decision looks at all of them.
"""

import heapq
import itertools
from collections import OrderedDict
from typing import Generic, Literal, Protocol, TypeVar

State = Literal["waiting", "receiving", "working"]
"""Whether a connection waits for a request, receives its body, or has the whole of it."""
_SPARE_RANKS = 64
"""How many ranks that no longer hold are kept besides as many as there are callers."""


class Called(Protocol):
    """Anything that has a caller."""

    def caller(self) -> str:
        """Return the caller as it is known now: a trusted proxy names another one in a request."""


C = TypeVar("C", bound=Called)
Rank = tuple[int, bool, int]
"""What decides between callers, the smallest first: the number of connections, negative; whether
none of them waits; and when the one that makes room got its state."""


class OpenConnections(Generic[C]):
    """Connections by caller and state. Those of one caller and state are in the order of age."""

    def __init__(self) -> None:
        self._callers: dict[str, dict[State, OrderedDict[C, int]]] = {}
        self._places: dict[C, tuple[str, State]] = {}
        self._ages = itertools.count()
        self._ranks: list[tuple[Rank, str]] = []  # a heap; those that are not of now are passed over

    def __len__(self) -> int:
        return len(self._places)

    def put(self, connection: C, state: State) -> None:
        """Note the state that a connection has from now on."""
        self.remove(connection)
        self._place(connection, state, next(self._ages))

    def rename(self, connection: C) -> None:
        """Count a connection for the caller whom its request has named."""
        if connection not in self._places:
            return
        caller, state = self._places[connection]
        if connection.caller() != caller:
            age = self._callers[caller][state][connection]
            self.remove(connection)
            self._place(connection, state, age)

    def remove(self, connection: C) -> None:
        """Forget a connection, if it is known."""
        if connection not in self._places:
            return
        caller, state = self._places.pop(connection)
        states = self._callers[caller]
        del states[state][connection]
        if any(states.values()):
            self._keep_rank(caller)
        else:
            del self._callers[caller]

    def choose(self) -> C | None:
        """Return the connection that makes room for another one, or None if all are in use.

        It is one of the caller that has the most connections, so that nobody loses theirs because
        of another caller: the one that has waited longest for a request, or if none waits, the one
        whose request has been arriving for the longest time.
        """
        while self._ranks:
            rank, caller = self._ranks[0]
            if rank == self._rank(caller):
                return next(iter(_closable(self._callers[caller])))
            heapq.heappop(self._ranks)
        return None

    def _place(self, connection: C, state: State, age: int) -> None:
        caller = connection.caller()
        if caller not in self._callers:
            self._callers[caller] = {"waiting": OrderedDict(), "receiving": OrderedDict(), "working": OrderedDict()}
        self._callers[caller][state][connection] = age
        self._places[connection] = caller, state
        self._keep_rank(caller)

    def _rank(self, caller: str) -> Rank | None:
        """Return the rank of a caller; None if all of their connections are in use."""
        states = self._callers.get(caller)
        if states is None or not (closable := _closable(states)):
            return None
        return -sum(map(len, states.values())), not states["waiting"], next(iter(closable.values()))

    def _keep_rank(self, caller: str) -> None:
        if (rank := self._rank(caller)) is not None:
            heapq.heappush(self._ranks, (rank, caller))
        if len(self._ranks) > 2 * len(self._callers) + _SPARE_RANKS:
            ranks = ((self._rank(caller), caller) for caller in self._callers)
            self._ranks = [(rank, caller) for rank, caller in ranks if rank is not None]
            heapq.heapify(self._ranks)


def _closable(states: dict[State, OrderedDict[C, int]]) -> OrderedDict[C, int]:
    """Return the connections of a caller of which the oldest makes room, with their ages."""
    return states["waiting"] or states["receiving"]
