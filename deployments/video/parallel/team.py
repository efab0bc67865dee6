"""A team of devices that run one forward pass together, and how its members exchange tensors.

Every member runs in a thread of its own, on the current stream of its device. What it shares it
announces to the others with an event on its stream; they copy from it, from device to device. No
thread waits for a GPU: the streams wait for each other's events.

The threads take turns, from one exchange to the next. If they ran at the same time, each call of
PyTorch would have to win back the interpreter from the others, which takes longer than the calls.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
        self._turns = [threading.Semaphore(int(rank == 0)) for rank in range(count)]
        self._mail: list[list[deque[tuple[Tensors, Any]]]] = [[deque() for _ in range(count)] for _ in range(count)]
        self._broken = False
        self.members = [Member(self, rank) for rank in range(count)]

    def take_turn(self, rank: int) -> None:
        """Wait until it is the turn of ``rank``; raises ``TeamBroken`` if another has failed."""
        self._turns[rank].acquire()
        if self._broken:
            raise TeamBroken("another device of the team has failed")

    def pass_turn(self, rank: int) -> None:
        """Give the turn of ``rank`` to the next member."""
        self._turns[(rank + 1) % len(self.devices)].release()

    def fail(self) -> None:
        """Make all other members raise ``TeamBroken`` when it is their turn."""
        self._broken = True

    def post(self, tensors: Tensors, event: Any, *, sender: int) -> None:
        """Announce ``tensors``, complete once ``event`` has happened, to all other members."""
        for rank, boxes in enumerate(self._mail):
            if rank != sender:
                boxes[sender].append((tensors, event))

    def receive(self, rank: int, sender: int) -> tuple[Tensors, Any]:
        """Return what ``sender`` has announced to ``rank``, next in order."""
        return self._mail[rank][sender].popleft()


class Member:
    """One device of a team; its methods are called from its own thread."""

    def __init__(self, team: Team, rank: int) -> None:
        self._team = team
        self.rank = rank
        self._shared: Tensors = ()
        """What was shared last. It is kept until all others have copied it."""
        self._streams: dict[torch.device, Any] = {}

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
        """Return the result of ``call``, which runs in turns with those of the other members.

        If it fails, the others do not wait for it: they raise ``TeamBroken``.
        """
        try:
            self._team.take_turn(self.rank)
            return call()
        except BaseException:
            self._team.fail()
            raise
        finally:
            self._team.pass_turn(self.rank)

    @contextmanager
    def share(self, *tensors: torch.Tensor) -> Iterator[list[Tensors]]:
        """Share ``tensors``, and yield those of all members in order.

        All members share at the same points. In the context the others' tensors may be copied to
        this member's device, and only that. A tensor that was shared must not be changed.
        """
        self._team.post(tensors, self._event(), sender=self.rank)
        self._team.pass_turn(self.rank)
        self._team.take_turn(self.rank)
        everyone: list[Tensors] = []
        for rank, device in enumerate(self._team.devices):
            if rank == self.rank:
                everyone.append(tensors)
                continue
            theirs, event = self._team.receive(self.rank, rank)
            if event is not None:
                # PyTorch runs a copy on the current stream of the source's device. In this thread
                # that is a stream of its own, which has to wait for the other thread's work.
                self._stream(device).wait_event(event)
                self._stream(self.device).wait_event(event)
            everyone.append(theirs)
        yield everyone
        # Every member has now copied what it was given the time before: its event came after that.
        self._shared = tensors

    def _event(self) -> Any:
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream(self.device))
        return event

    def _stream(self, device: torch.device) -> Any:
        """Return the current stream of ``device`` in this member's thread, which never changes."""
        if device not in self._streams:
            self._streams[device] = torch.cuda.current_stream(device)
        return self._streams[device]
