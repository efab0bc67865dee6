"""The clock of an event loop, which a test moves instead of waiting for a time limit."""

import asyncio


class LoopClock:
    """Stands for the clock of the running event loop, so that its timers end when a test says so.

    ``time.time`` goes on as it does.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._ahead_s = 0.0
        loop.time = self._time  # type: ignore[method-assign]

    def move(self, seconds: float) -> None:
        """Let all timers end that would end within ``seconds``."""
        self._ahead_s += seconds

    def _time(self) -> float:
        return self._now() + self._ahead_s
