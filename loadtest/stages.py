"""The shapes of a load test: how many users there are at which time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

RAMP_STEPS = 4
"""The number of steps in which a ramp reaches all users."""


@dataclass(frozen=True)
class Stage:
    """Until ``until_s`` seconds after the start there are ``users``."""

    until_s: float
    users: int


def ramp(users: int, seconds: float) -> list[Stage]:
    """Return a load that grows in equal steps over two thirds of the time, and then stays."""
    steps = min(RAMP_STEPS, users)
    growing = [
        Stage(until_s=seconds * 2 / 3 * (i + 1) / steps, users=max(1, round(users * (i + 1) / steps))) for i in range(steps)
    ]
    return [*growing, Stage(until_s=seconds, users=users)]


def spike(users: int, seconds: float) -> list[Stage]:
    """Return a load of a tenth of the users, with all of them in the middle third of the time."""
    few = max(1, users // 10)
    return [Stage(seconds / 3, few), Stage(seconds * 2 / 3, users), Stage(seconds, few)]


def soak(users: int, seconds: float) -> list[Stage]:
    """Return a load that stays the same."""
    return [Stage(seconds, users)]


SHAPES: dict[str, Callable[[int, float], list[Stage]]] = {"ramp": ramp, "spike": spike, "soak": soak}
"""Every shape by its name: a function of the most users and of the seconds."""


def users_at(stages: Sequence[Stage], second: float) -> int | None:
    """Return how many users there are at a time; None once the test is over."""
    return next((stage.users for stage in stages if second < stage.until_s), None)
