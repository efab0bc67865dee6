"""How long each stage of a job takes, learned from the jobs before it."""

from collections.abc import Mapping
from dataclasses import dataclass

from serve.pipelines.requests import GenerateVideo, PipelineRequest, SwapImage, SwapVideo

_STAGES = ("denoising", "decoding", "swapping")
_GUESSES: Mapping[str, float] = {"denoising": 1.0, "decoding": 0.2, "swapping": 0.05}
"""Relative times of a unit of each stage, until a job has been measured."""
_WEIGHT = 0.5
"""The share of the latest job in what is remembered."""


@dataclass(frozen=True)
class Work:
    """The units of work in each stage of a job, in proportion to their time.

    A unit of ``denoising`` is a pass over a million pixels of one frame, one of ``decoding`` a
    million pixels of one frame, and one of ``swapping`` a frame.
    """

    units: Mapping[str, float]

    @classmethod
    def of(cls, request: PipelineRequest, frames: int | None = None) -> "Work":
        """Return the work of ``request``; a source video has ``frames``, once that is known."""
        if isinstance(request, GenerateVideo):
            pixels = request.width * request.height * request.frames / 1e6
            passes = request.steps * (1 if request.cfg == 1 else 2)
            units = {"denoising": pixels * passes, "decoding": pixels}
            if request.face is not None:
                units["swapping"] = float(request.frames)
            return cls(units)
        if isinstance(request, SwapVideo):
            return cls({"swapping": float(frames or 1)})
        assert isinstance(request, SwapImage)
        return cls({"swapping": 1.0})


class Pace:
    """The seconds that a unit of each stage takes on each model, as far as they are known."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    def of(self, model: str, stage: str) -> float | None:
        """Return the seconds of a unit, or None before the first job of ``model`` has ended."""
        return self._seconds.get((model, stage))

    def guess(self, model: str, stage: str) -> float:
        """Return the seconds of a unit; without a measurement a guess that is only relative."""
        known = self.of(model, stage)
        return _GUESSES[stage] if known is None else known

    def learn(self, model: str, stage: str, *, seconds: float, units: float) -> None:
        """Note that ``units`` took ``seconds``."""
        if units <= 0 or seconds <= 0 or stage not in _STAGES:
            return
        latest, known = seconds / units, self.of(model, stage)
        self._seconds[model, stage] = latest if known is None else _WEIGHT * latest + (1 - _WEIGHT) * known
