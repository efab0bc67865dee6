"""Which connection makes room for another one, and what finding it costs."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from serve.http.protocol.open_connections import OpenConnections, State


@dataclass(eq=False)
class Connection:
    """A connection of a caller."""

    name: str

    def caller(self) -> str:
        """See ``Called``."""
        return self.name


def opened(*states: tuple[str, State]) -> tuple[OpenConnections[Connection], list[Connection]]:
    """Return connections of these callers in these states, the oldest first."""
    known: OpenConnections[Connection] = OpenConnections()
    connections = [Connection(name) for name, _ in states]
    for connection, (_, state) in zip(connections, states, strict=True):
        known.put(connection, state)
    return known, connections


def test_the_oldest_that_waits_goes_before_those_whose_body_arrives() -> None:
    known, (receiving, first, second) = opened(("a", "receiving"), ("a", "waiting"), ("a", "waiting"))
    order = []
    while (chosen := known.choose()) is not None:
        known.remove(chosen)
        order.append(chosen)
    assert order == [first, second, receiving]


def test_a_connection_that_waits_again_is_the_youngest() -> None:
    known, (first, second) = opened(("a", "waiting"), ("a", "waiting"))
    known.put(first, "working")
    known.put(first, "waiting")
    assert known.choose() is second


def test_connections_in_use_count_for_their_caller_and_are_kept() -> None:
    known, (*_, idle, _) = opened(("a", "working"), ("a", "working"), ("a", "waiting"), ("b", "waiting"))
    assert known.choose() is idle
    known, _ = opened(("a", "working"), ("b", "working"))
    assert known.choose() is None


def test_of_callers_with_as_many_connections_the_one_that_waits_longest_makes_room() -> None:
    known, (_, idle, _) = opened(("a", "receiving"), ("b", "waiting"), ("c", "waiting"))
    assert known.choose() is idle


def test_a_caller_who_is_named_later_is_the_one_that_counts() -> None:
    known, (*busy, idle, other) = opened(("proxy", "working"), ("proxy", "working"), ("proxy", "waiting"), ("b", "waiting"))
    for connection in (*busy, idle, other):
        connection.name = "client" if connection is not other else "b"
        known.rename(connection)
    known.put(Connection("b"), "waiting")
    assert known.choose() is idle
    assert len(known) == 5


def test_what_has_ended_leaves_nothing() -> None:
    known, connections = opened(("a", "waiting"), ("b", "receiving"), ("a", "working"))
    for connection in [*connections, Connection("c")]:
        known.remove(connection)
    assert len(known) == 0
    assert known.choose() is None


def test_the_choice_is_that_of_the_rule_whatever_happens() -> None:
    lot = random.Random(5)
    known: OpenConnections[Connection] = OpenConnections()
    states: dict[Connection, State] = {}  # in the order of their ages
    kinds: tuple[State, ...] = ("waiting", "receiving", "working")
    for _ in range(3000):
        if states and lot.random() < 0.3:
            known.remove(gone := lot.choice(list(states)))
            del states[gone]
        else:
            connection = lot.choice(list(states)) if states and lot.random() < 0.5 else Connection(lot.choice("abcd"))
            states.pop(connection, None)
            states[connection] = state = lot.choice(kinds)
            known.put(connection, state)
        counts = Counter(connection.name for connection in states)
        ages = {connection: age for age, connection in enumerate(states)}
        order = {
            connection: (-counts[connection.name], state == "receiving", ages[connection])
            for connection, state in states.items()
            if state != "working"
        }
        assert known.choose() is min(order, key=order.__getitem__, default=None)


class Name(str):
    """A name that counts how often anything is looked up by it."""

    asked = 0

    def __hash__(self) -> int:
        Name.asked += 1
        return super().__hash__()


@pytest.mark.parametrize("callers", [1, 1000])
def test_a_flood_looks_at_a_few_connections_only(callers: int) -> None:
    known: OpenConnections[Connection] = OpenConnections()
    for number in range(1000):
        known.put(Connection(Name(number % callers)), "waiting")
    Name.asked = 0
    for number in range(1000):
        chosen = known.choose()
        assert chosen is not None
        known.remove(chosen)
        known.put(Connection(Name(number % callers)), "waiting")
    assert Name.asked <= 20 * 1000
