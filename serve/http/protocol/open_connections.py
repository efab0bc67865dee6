"""The open connections of the proxy, in the order in which they make room for others.

A flood opens connections as fast as it can, and each may have to close another one. So this order
is kept up to date as connections come, change and go, and no decision looks at all of them.
"""

from typing import Generic, Literal, Protocol, TypeVar

State = Literal["waiting", "receiving", "working"]
"""Whether a connection waits for a request, receives its body, or has the whole of it."""


class Called(Protocol):
    """Anything that has a caller."""

    def caller(self) -> str:
        """Return the caller as it is known now: a trusted proxy names another one in a request."""


C = TypeVar("C", bound=Called)


class OpenConnections(Generic[C]):
    """Connections by caller and state. Those of one caller and state are ordered by age."""

    def __init__(self) -> None:
        self._callers: dict[str, dict[State, dict[C, None]]] = {}
        self._places: dict[C, tuple[str, State]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def put(self, connection: C, state: State) -> None:
        """Note the state that a connection has from now on."""
        self.remove(connection)
        caller = connection.caller()
        states = self._callers.setdefault(caller, {"waiting": {}, "receiving": {}, "working": {}})
        states[state][connection] = None
        self._places[connection] = caller, state

    def remove(self, connection: C) -> None:
        """Forget a connection, if it is known."""
        if connection not in self._places:
            return
        caller, state = self._places.pop(connection)
        states = self._callers[caller]
        del states[state][connection]
        if not _count(states):
            del self._callers[caller]

    def choose(self) -> C | None:
        """Return the connection that makes room for another one, or None if all are in use.

        It is one of the caller that has the most connections, so that nobody loses theirs because
        of another caller: the one that has waited longest for a request, or if none waits, the one
        whose request has been arriving for the longest time.
        """
        while True:
            closable = (states for states in self._callers.values() if states["waiting"] or states["receiving"])
            most = max(closable, key=_count, default=None)
            if most is None:
                return None
            oldest = next(iter(most["waiting"] or most["receiving"]))
            caller, state = self._places[oldest]
            if oldest.caller() == caller:
                return oldest
            self.put(oldest, state)  # it counts for its caller from now on, whom it has named since


def _count(states: dict[State, dict[C, None]]) -> int:
    return sum(map(len, states.values()))
