"""The shape of a load test as Locust asks for it."""

import time
from typing import ClassVar

from locust import LoadTestShape

from loadtest.run_events import Run
from loadtest.stages import SHAPES, users_at


class ChosenShape(LoadTestShape):
    """The shape that `--shape` names, of `--users` over `--run-time`."""

    use_common_options = True
    run: ClassVar[Run | None] = None
    """The run that it is the shape of, which says when there were enough answers."""

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there are now and how many begin in a second; None at the end."""
        assert self.runner is not None
        if self.run is not None and self.run.is_enough():
            return None
        options = self.runner.environment.parsed_options
        assert options is not None
        users, seconds = options.num_users or 4, float(options.run_time or 120)
        now = users_at(SHAPES[options.shape](users, seconds), time.perf_counter() - self.start_time)
        return None if now is None else (now, max(1.0, users / 10))
