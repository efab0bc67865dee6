"""What a request carries through its pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deployments.wire import Progress
from serve.pipelines.meter import Meter


@dataclass(frozen=True)
class ChunkStep:
    """A step that the chunk whose first frame is number ``index`` has reached."""

    kind: Literal["decoded", "swap-started", "swapped", "encoded"]
    index: int


Observer = Callable[[Progress | ChunkStep], None]
"""A function that is called with each step of a request as it happens."""


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """Everything about a request that is not in its body.

    ``seed`` drives the video model, ``media_type`` is the format of the result, ``meter`` collects
    times and costs, and ``observe`` is called with each step. ``caller`` is the name
    of the caller's key, or the caller's address; callers share the decoding processes fairly.
    """

    seed: int
    media_type: str
    meter: Meter
    observe: Observer
    caller: str = ""


def ignore_steps(_: object) -> None:
    """Do nothing, as the observer of a request whose steps nobody follows."""
