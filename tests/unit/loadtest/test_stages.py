"""The shapes of a load test."""

import pytest

from loadtest.stages import SHAPES, ramp, spike, users_at


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("users", [1, 3, 40])
def test_every_shape_reaches_all_users_and_ends_in_time(shape: str, users: int) -> None:
    stages = SHAPES[shape](users, 90)
    counts = [users_at(stages, second) for second in range(90)]
    assert max(count for count in counts if count is not None) == users
    assert all(count is not None and 1 <= count <= users for count in counts)
    assert users_at(stages, 90) is None


def test_a_ramp_never_falls() -> None:
    counts = [stage.users for stage in ramp(10, 60)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_a_spike_comes_and_goes() -> None:
    stages = spike(40, 90)
    assert [users_at(stages, second) for second in (0, 29, 30, 59, 60, 89)] == [4, 4, 40, 40, 4, 4]
