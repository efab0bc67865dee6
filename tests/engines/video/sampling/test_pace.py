"""The CPU stays a fixed number of forward passes ahead of a GPU."""

from contextlib import nullcontext

import pytest
import torch

from deployments.video.sampling.pace import Pace


class Event:
    """A stand-in for a CUDA event, which records the order in which events are waited for."""

    created = 0
    waited_for: list[int]

    def __init__(self, *, blocking: bool) -> None:
        assert blocking
        self.number = Event.created
        Event.created += 1

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        Event.waited_for.append(self.number)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the events that were waited for, in order."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    Event.waited_for, Event.created = [], 0
    return Event.waited_for


def test_one_of_two_passes_is_launched_ahead(events: list[int]) -> None:
    reported: list[int] = []
    device = torch.device("cuda")
    pace = Pace(device, reported.append)
    for _ in range(3):
        for _ in range(2):
            pace.launch(device)
            assert len(events) == max(0, Event.created - 1)
        pace.finish_step()
    pace.finish()
    assert events == [*range(6)]
    assert reported == [0, 1, 1, 2, 2, 3], "a step is finished when both its passes are"


@pytest.mark.parametrize("together", [1, 2])
def test_a_step_of_one_launch_is_waited_for_on_all_devices(together: int, events: list[int]) -> None:
    """A request that is cancelled during a step runs no other one."""
    reported: list[int] = []
    device = torch.device("cuda")
    pace = Pace(device, reported.append)
    for step in range(1, 4):
        pace.launch(*[device] * together)
        pace.finish_step()
        assert (len(events), reported[-1]) == (step * together, step)
    assert reported == [1, 2, 3]


def test_a_cpu_has_finished_a_step_when_its_passes_return() -> None:
    reported: list[int] = []
    device = torch.device("cpu")
    pace = Pace(device, reported.append)
    for _ in range(2):
        pace.launch(device)
        pace.finish_step()
    pace.finish()
    assert reported == [1, 2]


def test_a_step_without_a_pass_is_finished_with_the_last_pass_before(events: list[int]) -> None:
    reported: list[int] = []
    device = torch.device("cuda")
    pace = Pace(device, reported.append)
    pace.finish_step()
    assert reported == [1], "nothing was launched, so nothing is waited for"
    pace.launch(device)
    pace.launch(device)
    pace.finish_step()
    pace.finish_step()
    assert (events, reported) == ([0], [1, 1])
    pace.finish()
    assert reported == [1, 1, 3]
