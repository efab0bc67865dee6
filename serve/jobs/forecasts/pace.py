"""How long each stage of a job takes, learned from the jobs before it."""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from serve.pipelines.requests import GenerateVideo, PipelineRequest, SwapImage, SwapVideo

GUESSES: Mapping[str, float] = {"denoising": 1.0, "decoding": 2.0, "swapping": 2.0}
"""Relative times of a unit of each stage, until a job has been measured."""
REMEMBERED = 5
"""The number of the latest jobs whose median counts, so that an odd one does not."""


@dataclass(frozen=True)
class Work:
    """The units of work in each stage of a job, in the order of the stages.

    A unit of ``denoising`` is a pass over a million pixels of one frame, and one of ``decoding`` a
    million pixels of one frame. ``swapping`` has the same unit where a video is made, since its
    frames are swapped while others are decoded, so that both are one stage; else its unit is a
    frame.
    """

    units: Mapping[str, float]

    @classmethod
    def of(cls, request: PipelineRequest, frames: int | None = None) -> "Work":
        """Return the work of ``request``; a source video has ``frames``, once that is known."""
        if isinstance(request, GenerateVideo):
            pixels = request.width * request.height * request.frames / 1e6
            passes = request.steps * (1 if request.cfg == 1 else 2)
            return cls({"denoising": pixels * passes, "decoding" if request.face is None else "swapping": pixels})
        if isinstance(request, SwapVideo):
            return cls({"swapping": float(frames or 1)})
        assert isinstance(request, SwapImage)
        return cls({"swapping": 1.0})


class Pace:
    """The seconds that a unit of each stage takes on each model, as far as they are known."""

    def __init__(self) -> None:
        self._seconds: defaultdict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    def of(self, model: str, stage: str) -> float | None:
        """Return the seconds of a unit, or None before the first job of ``model`` has ended."""
        measured = self._seconds.get((model, stage))
        return median(measured) if measured else None

    def learn(self, model: str, stage: str, *, seconds: float, units: float) -> None:
        """Note that ``units`` took ``seconds``."""
        if units > 0 and seconds > 0:
            self._seconds[model, stage].append(seconds / units)
