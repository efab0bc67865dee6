"""A thread for each device of a replica."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

import torch

from deployments.video.parallel.team import TeamBroken


class DeviceThreads:
    """Runs calls at the same time, each in the thread of its device. A context manager.

    In its thread a device is the current one, and gradients are off. A thread starts when it is
    first needed.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = devices
        self._threads: dict[int, ThreadPoolExecutor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for thread in self._threads.values():
            thread.shutdown()

    def run(self, calls: Mapping[int, Callable[[], torch.Tensor]]) -> dict[int, torch.Tensor]:
        """Return the result of each call, by the number of its device, once all have ended.

        Raises the error of a call that failed; if several did, not one that only followed from
        another.
        """
        futures = {number: self._thread(number).submit(_without_gradients, call) for number, call in calls.items()}
        wait(futures.values())
        errors = [error for future in futures.values() if (error := future.exception()) is not None]
        if errors:
            raise next((error for error in errors if not isinstance(error, TeamBroken)), errors[0])
        return {number: future.result() for number, future in futures.items()}

    def _thread(self, number: int) -> ThreadPoolExecutor:
        if number not in self._threads:
            name = f"device-{number}"
            self._threads[number] = ThreadPoolExecutor(1, name, initializer=_enter, initargs=(number, self._devices))
        return self._threads[number]


def _enter(number: int, devices: Sequence[torch.device]) -> None:
    """Make a device the current one in this thread.

    A copy from another device waits for the current stream of that device in this thread, so that
    device gets one without any work.
    """
    if devices[number].type != "cuda":
        return
    for device in devices:
        if device != devices[number]:
            torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
    torch.cuda.set_device(devices[number])


@torch.no_grad()  # gradients are switched off for each thread
def _without_gradients(call: Callable[[], torch.Tensor]) -> torch.Tensor:
    return call()
