"""Keeps the CPU a fixed number of forward passes ahead of the GPU."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class _Pass:
    """A forward pass that was launched on a GPU."""

    event: Any
    finished_steps: int
    """The number of steps that are finished once this pass is."""


class Pace:
    """Reports steps as the GPU finishes them, and waits where the CPU is ``ahead`` passes ahead.

    The GPU therefore never runs out of work, and a cancelled request stops soon. ``report`` gets
    the number of finished steps and may raise.
    """

    def __init__(self, device: torch.device, report: Callable[[int], None], *, ahead: int) -> None:
        self._cuda = device.type == "cuda"
        self._report = report
        self._ahead = ahead
        self._launched: deque[_Pass] = deque()
        self._steps = 0

    def launch(self, device: torch.device) -> None:
        """Note that a forward pass was launched, and wait for an older one if there are too many.

        ``device`` is the one that runs the pass. On a GPU ``report`` is called after every pass,
        also with an unchanged number of steps.
        """
        if not self._cuda:
            return
        with torch.cuda.device(device):
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record()
        self._launched.append(_Pass(event, self._steps))
        if len(self._launched) > self._ahead:
            self._wait()

    def finish_step(self) -> None:
        """Note that all passes of a step were launched; a CPU has then finished them."""
        self._steps += 1
        if self._cuda:
            self._launched[-1].finished_steps = self._steps
        else:
            self._report(self._steps)

    def finish(self) -> None:
        """Wait for all passes."""
        while self._launched:
            self._wait()

    def _wait(self) -> None:
        oldest = self._launched.popleft()
        oldest.event.synchronize()
        self._report(oldest.finished_steps)
