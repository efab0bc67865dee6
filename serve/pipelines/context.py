"""What a request carries through its pipeline."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from deployments.wire import Image, Progress
from serve.media.encode.encoder import FrameMark
from serve.pipelines.meter import Meter


@dataclass(frozen=True)
class ChunkStep:
    """A step that the chunk whose first frame is number ``index`` has reached.

    ``frame`` is its last frame, where there is one to show.
    """

    kind: Literal["decoded", "swap-started", "swapped", "encoded"]
    index: int
    frame: Image | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class FrameCount:
    """The source video has ``frames`` frames."""

    frames: int


Step = Progress | ChunkStep | FrameCount
"""What the observer of a request learns."""
Observer = Callable[[Step], None]
"""A function that is called with each step of a request as it happens."""


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """Everything about a request that is not in its body.

    ``seed`` drives the video model, ``media_type`` is the format of the result, ``meter`` collects
    times and costs, and ``observe`` is called with each step. ``caller`` is the name
    of the caller's key, or the caller's address; callers share the decoding processes fairly.
    ``new_mark`` returns the mark for one file of results, whose frames it gets in order. If
    ``labelled``, frames also show the label of GB 45438-2025.
    """

    seed: int
    media_type: str
    meter: Meter
    observe: Observer
    caller: str = ""
    new_mark: Callable[[], FrameMark] | None = None
    labelled: bool = False
