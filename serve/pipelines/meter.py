"""Measures one request: the seconds in each deployment and the time of each phase."""

import time
from dataclasses import dataclass, field
from types import TracebackType

from serve.config import Hardware

PHASES = ("queue", "start", "denoise", "decode", "swap", "encode")
"""The phases of a request, in the order in which `Server-Timing` lists them."""


@dataclass
class Meter:
    """The times of one request, filled while it runs.

    ``hardware`` maps the API name of each model that the request uses to what it runs on; the first
    entry is the one that `X-GPU-Type` names.
    """

    hardware: dict[str, Hardware]
    seconds: dict[str, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    """The API names of the models that have begun on the request."""
    started: set[str] = field(default_factory=set)
    """The API names of the models that the request waited for because they had to start."""
    acceleration: str = ""
    """How the video model departed from the exact computation, for `X-Acceleration`."""
    loras: str = ""
    """The LoRAs that the video model added, for `X-Loras`."""

    def clear(self) -> None:
        """Drop the times of a failed attempt, which the caller does not pay for."""
        self.seconds.clear()
        self.phases.clear()
        self.begun.clear()
        self.started.clear()
        self.acceleration = ""
        self.loras = ""

    def add_work(self, model: str, seconds: float) -> None:
        """Add ``seconds`` of work by a replica of ``model``."""
        self.begun.add(model)
        self.seconds[model] = self.seconds.get(model, 0.0) + seconds

    def add_wait(self, model: str, seconds: float, *, was_ready: bool) -> None:
        """Add ``seconds`` of waiting for ``model``: for its turn, or for it to start."""
        if not was_ready:
            self.started.add(model)
        self.add_phase("queue" if was_ready else "start", seconds)

    def add_phase(self, name: str, seconds: float) -> None:
        """Add ``seconds`` to one of ``PHASES``."""
        self.phases[name] = self.phases.get(name, 0.0) + seconds

    @property
    def execution_s(self) -> float:
        """The seconds spent in the deployments, queueing excluded."""
        return sum(self.seconds.values())

    @property
    def cost_usd(self) -> float:
        """The price of those seconds on the hardware that each deployment runs on."""
        return sum(self.cost_of(model) for model in self.seconds)

    def cost_of(self, model: str) -> float:
        """Return the price of the seconds that replicas of ``model`` worked, in USD."""
        return self.seconds.get(model, 0.0) * self.hardware[model].price_usd_per_hour / 3600

    @property
    def gpu_type(self) -> str:
        """The hardware of the video model or, in its absence, of the face swapper."""
        return next(iter(self.hardware.values())).label

    def server_timing(self) -> str:
        """Return the value of the `Server-Timing` header, in milliseconds."""
        return ", ".join(f"{name};dur={self.phases[name] * 1000:.1f}" for name in PHASES if name in self.phases)


class Stopwatch:
    """Measures a block: ``with Stopwatch() as watch: ...``, then ``watch.seconds``."""

    seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._start
