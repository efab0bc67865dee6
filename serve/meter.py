"""Measures one request: seconds by deployment, for the bill, and milliseconds by phase, for Server-Timing."""

import time
from dataclasses import dataclass, field

from serve.config import Hardware

PHASES = ("queue", "start", "denoise", "decode", "swap", "encode")


@dataclass
class Meter:
    """Filled while a request runs. ``hardware``: of each model that it uses, by the API's name, the one that `X-GPU-Type` names first."""

    hardware: dict[str, Hardware]
    seconds: dict[str, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    acceleration: str = ""
    """What the video model did other than exactly."""

    def clear(self) -> None:
        """Forgets what an attempt that failed has cost: it is not the caller's."""
        self.seconds.clear()
        self.phases.clear()
        self.acceleration = ""

    def work(self, model: str, seconds: float) -> None:
        """A deployment has worked."""
        self.seconds[model] = self.seconds.get(model, 0.0) + seconds

    def phase(self, name: str, seconds: float) -> None:
        """A phase has lasted."""
        self.phases[name] = self.phases.get(name, 0.0) + seconds

    @property
    def execution_s(self) -> float:
        """Seconds in the deployments, queueing not included."""
        return sum(self.seconds.values())

    @property
    def cost_usd(self) -> float:
        """The sum over deployments of their seconds at the price of their hardware."""
        return sum(seconds * self.hardware[model].price_usd_per_hour / 3600 for model, seconds in self.seconds.items())

    @property
    def gpu_type(self) -> str:
        """Hardware of the video model, else of the swapper."""
        return next(iter(self.hardware.values())).label

    def server_timing(self) -> str:
        """The header's value, in milliseconds."""
        return ", ".join(f"{name};dur={self.phases[name] * 1000:.1f}" for name in PHASES if name in self.phases)


class Stopwatch:
    """``with Stopwatch() as watch: ...; watch.seconds``."""

    seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
