"""Members of a team exchange tensors in turns, and none waits for one that has failed."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from deployments.video.parallel.team import Member, Team, TeamBroken
from deployments.video.parallel.threads import DeviceThreads

CPU = torch.device("cpu")


def run_team(count: int, work: Callable[[Member], torch.Tensor], rounds: int = 1) -> list[torch.Tensor]:
    """Return what ``work`` returned for each member in the last round."""
    team = Team([CPU] * count)
    with DeviceThreads(team.devices) as threads:
        for _ in range(rounds):
            results = threads.run({member.rank: partial(member.run, partial(work, member)) for member in team.members})
    return [results[rank] for rank in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_all_members_get_what_all_share_in_order(count: int) -> None:
    def work(member: Member) -> torch.Tensor:
        seen = []
        for number in range(5):
            with member.share(torch.tensor(10 * number + member.rank)) as everyone:
                seen.append(torch.stack([tensor for (tensor,) in everyone]))
        return torch.stack(seen)

    expected = torch.arange(5)[:, None] * 10 + torch.arange(count)
    for result in run_team(count, work, rounds=3):
        assert torch.equal(result, expected)


def test_only_one_member_runs_at_a_time() -> None:
    running: list[int] = []

    def work(member: Member) -> torch.Tensor:
        for _ in range(20):
            running.append(member.rank)
            assert running == [member.rank]
            running.clear()
            with member.share(torch.zeros(())):
                pass
        return torch.zeros(())

    run_team(3, work)


@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 1])
def test_the_first_error_ends_the_pass_of_all(failing: int, at: int) -> None:
    broken: list[int] = []

    def work(member: Member) -> torch.Tensor:
        try:
            for number in range(3):
                if member.rank == failing and number == at:
                    raise RuntimeError("CUDA error: the GPU is lost")
                with member.share(torch.zeros(())):
                    pass
        except TeamBroken:
            broken.append(member.rank)
            raise
        return torch.zeros(())

    with pytest.raises(RuntimeError, match="the GPU is lost"):
        run_team(3, work)
    # With no exchange before the failure, the others had not even begun.
    assert failing not in broken
    if at:
        assert sorted([failing, *broken]) == [0, 1, 2]


def test_parts_cover_everything_once() -> None:
    for count in (0, 1, 5, 12, 14_040):
        for size in (1, 2, 5, 8):
            team = Team([CPU] * size)
            items = [item for member in team.members for item in range(count)[member.span(count)]]
            assert items == [*range(count)]
            assert all(member.span(count, 0) == team.members[0].span(count) for member in team.members)


def test_every_device_has_one_thread_without_gradients() -> None:
    with DeviceThreads([CPU, CPU]) as threads:
        names = set()
        for _ in range(3):
            results = threads.run({number: lambda: torch.tensor(torch.is_grad_enabled()) for number in (0, 1)})
            assert not any(results.values())
            names |= {thread._thread_name_prefix for thread in threads._threads.values()}
    assert names == {"device-0", "device-1"}
