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


@pytest.mark.parametrize("together", [1, 2])
def test_the_cpu_is_one_launch_ahead_of_all_gpus(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    Event.waited_for, Event.created = [], 0
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    reported: list[int] = []
    device = torch.device("cuda")
    pace = Pace(device, reported.append)
    for _ in range(3):
        for _ in range(2):
            pace.launch(*[device] * together)
            assert len(Event.waited_for) == max(0, Event.created - together)
        pace.finish_step()
    pace.finish()
    assert Event.waited_for == [*range(6 * together)]
    assert reported == [0, 1, 1, 2, 2, 3], "a step is finished when all its passes are"


def test_a_cpu_has_finished_a_step_when_its_passes_return() -> None:
    reported: list[int] = []
    device = torch.device("cpu")
    pace = Pace(device, reported.append)
    for _ in range(2):
        pace.launch(device)
        pace.finish_step()
    pace.finish()
    assert reported == [1, 2]


def test_a_step_without_a_pass_is_finished_with_the_last_pass_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    Event.waited_for, Event.created = [], 0
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    reported: list[int] = []
    pace = Pace(torch.device("cuda"), reported.append)
    pace.finish_step()
    assert reported == [1], "nothing was launched, so nothing is waited for"
    pace.launch(torch.device("cuda"))
    pace.finish_step()
    pace.finish_step()
    assert reported == [1]
    pace.finish()
    assert reported == [1, 3]
