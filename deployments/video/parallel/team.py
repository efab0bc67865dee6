"""A team of devices that run one forward pass together, and how its members exchange tensors.

Every member runs in a thread of its own, on the current stream of its device. What it shares it
announces to the others with an event on its stream; they copy from it, from device to device. No
thread waits for a GPU: the streams wait for each other's events.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

T = TypeVar("T")
Tensors = tuple[torch.Tensor, ...]


class TeamBroken(RuntimeError):
    """Another member of the team has failed, so that this one cannot go on."""


class Team:
    """The members of a team, one for each of ``devices``, which may be the same."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self.devices = tuple(devices)
        count = len(self.devices)
        self._mail: list[list[SimpleQueue[tuple[Tensors, Any] | None]]] = [
            [SimpleQueue() for _ in range(count)] for _ in range(count)
        ]
        self.members = [Member(self, rank) for rank in range(count)]

    def post(self, tensors: Tensors, event: Any, *, sender: int) -> None:
        """Announce ``tensors``, complete once ``event`` has happened, to all other members."""
        for rank, boxes in enumerate(self._mail):
            if rank != sender:
                boxes[sender].put((tensors, event))

    def receive(self, rank: int, sender: int) -> tuple[Tensors, Any]:
        """Return what ``sender`` has announced to ``rank``, next in order.

        It waits for the sender's thread. Raises ``TeamBroken`` once a member has failed.
        """
        mail = self._mail[rank][sender].get()
        if mail is None:
            raise TeamBroken("another device of the team has failed")
        return mail

    def fail(self, rank: int) -> None:
        """Make every member that waits for ``rank``, now or later, raise ``TeamBroken``."""
        for boxes in self._mail:
            boxes[rank].put(None)


class Member:
    """One device of a team; its methods are called from its own thread."""

    def __init__(self, team: Team, rank: int) -> None:
        self._team = team
        self.rank = rank
        self._shared: Tensors = ()
        """What was shared last. It is kept until all others have copied it."""

    @property
    def size(self) -> int:
        """The number of members."""
        return len(self._team.devices)

    @property
    def device(self) -> torch.device:
        """The device of this member."""
        return self._team.devices[self.rank]

    def span(self, count: int, rank: int | None = None) -> slice:
        """Return the part of ``count`` items, in order, of ``rank``, or of this member."""
        rank = self.rank if rank is None else rank
        return slice(count * rank // self.size, count * (rank + 1) // self.size)

    def run(self, call: Callable[[], T]) -> T:
        """Return the result of ``call``; if it fails, the other members do not wait for it."""
        try:
            return call()
        except BaseException:
            self._team.fail(self.rank)
            raise

    @contextmanager
    def share(self, *tensors: torch.Tensor) -> Iterator[list[Tensors]]:
        """Share ``tensors``, and yield those of all members in order.

        All members share at the same points. In the context the others' tensors may be copied to
        this member's device, and only that. A tensor that was shared must not be changed.
        """
        self._team.post(tensors, self._event(), sender=self.rank)
        everyone: list[Tensors] = []
        for rank, device in enumerate(self._team.devices):
            if rank == self.rank:
                everyone.append(tensors)
                continue
            theirs, event = self._team.receive(self.rank, rank)
            if event is not None:
                # PyTorch runs a copy on the current stream of the source's device. In this thread
                # that is a stream of its own, which has to wait for the other thread's work.
                torch.cuda.current_stream(device).wait_event(event)
            everyone.append(theirs)
        yield everyone
        # Every member has now copied what it was given the time before: its event came after that.
        self._shared = tensors

    def _event(self) -> Any:
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event
