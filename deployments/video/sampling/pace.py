"""Keeps the CPU one forward pass ahead of the GPU, or one on each of several GPUs."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class _Launch:
    """Forward passes that were launched at the same time, each on a GPU of its own."""

    events: list[Any]
    finished_steps: int
    """The number of steps that are finished once these passes are."""


class Pace:
    """Reports steps as the GPUs finish them, and lets the CPU launch at most half a step ahead.

    Of the two passes of a step one is launched ahead, so that a GPU never runs out of work. A step
    of one launch is waited for: launching a whole one ahead would let a cancelled request run for
    up to two. ``report`` gets the number of finished steps and may raise.
    """

    def __init__(self, device: torch.device, report: Callable[[int], None]) -> None:
        self._cuda = device.type == "cuda"
        self._report = report
        self._launched: deque[_Launch] = deque()
        self._launches = 0
        """The number of launches in the current step."""
        self._steps = 0

    def launch(self, *devices: torch.device) -> None:
        """Note that passes were launched at the same time, and wait for those launched before.

        ``devices`` are the ones that run them. On a GPU ``report`` is called each time, also with
        an unchanged number of steps.
        """
        if not self._cuda:
            return
        events = []
        for device in devices:
            with torch.cuda.device(device):
                event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
                event.record()
            events.append(event)
        self._launched.append(_Launch(events, self._steps))
        self._launches += 1
        if len(self._launched) > 1:
            self._wait()

    def finish_step(self) -> None:
        """Note that all passes of a step were launched; a CPU has then finished them.

        A step without a pass is finished with the last one before it.
        """
        self._steps += 1
        launches, self._launches = self._launches, 0
        if self._launched:
            self._launched[-1].finished_steps = self._steps
            if launches == 1:
                self.finish()
        else:
            self._report(self._steps)

    def finish(self) -> None:
        """Wait for all passes."""
        while self._launched:
            self._wait()

    def _wait(self) -> None:
        oldest = self._launched.popleft()
        for event in oldest.events:
            event.synchronize()
        self._report(oldest.finished_steps)
