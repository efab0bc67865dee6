"""The simulation of a day, which takes its decisions from Serve's own code."""

import random

import pytest
from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy

from benchmarks.autoscaling import DAY_S, PEAK_HOUR, Request, Setting, by_mean_work, by_work, day, load_at, simulate

DEFAULT = replica_queue_length_autoscaling_policy
SETTING = Setting(cold_start_s=100, downscale_delay_s=50)


def test_the_first_request_waits_for_a_cold_start_and_the_replica_is_given_back() -> None:
    outcome = simulate([Request(at=10, seconds=20)], DEFAULT, SETTING)
    assert outcome.waits == [pytest.approx(100, abs=2)]
    assert outcome.times == [pytest.approx(120, abs=2)]
    assert outcome.starts == 1
    # Serve averages over 30 s, so that it sees the last request for as long.
    assert 170 <= outcome.gpu_s <= 100 + 20 + 50 + 35


def test_a_request_that_finds_a_replica_waits_for_nothing() -> None:
    outcome = simulate([Request(0, 5), Request(120, 5)], DEFAULT, SETTING)
    assert outcome.waits[1] <= 1
    assert outcome.starts == 1


def test_requests_are_served_in_their_order_by_as_many_replicas_as_are_allowed() -> None:
    setting = Setting(cold_start_s=10, max_replicas=2, slots=2, downscale_delay_s=50)
    outcome = simulate([Request(i * 0.1, 500) for i in range(6)], DEFAULT, setting)
    assert outcome.starts == 2
    assert outcome.waits == sorted(outcome.waits)
    assert max(outcome.times) == pytest.approx(1500, abs=60), "six requests of 500 s on two replicas"


def test_short_work_starts_fewer_replicas_than_long_work() -> None:
    """Four requests of 3 s are done before another replica has started; four of 300 s are not."""
    starts = {}
    for seconds in (3, 300):
        requests = [Request(i * 0.1, seconds) for i in range(4)]
        starts[seconds] = [simulate(requests, policy, SETTING).starts for policy in (DEFAULT, by_work(100))]
    assert starts[3] == [4, 1]
    assert starts[300] == [4, 4]


def test_a_mean_is_unknown_until_the_first_request_has_run() -> None:
    outcome = simulate([Request(i * 0.1, 300) for i in range(4)], by_mean_work(100), SETTING)
    assert outcome.starts == 4


def test_a_day_has_its_peak_and_its_bursts() -> None:
    requests = day(random.Random(1), peak_gpus=2, bursts=3)
    times = [request.at for request in requests]
    assert times == sorted(times)
    assert max(times) < DAY_S + 1
    around = [sum(abs(at / 3600 - hour) < 2 for at in times) for hour in (3, PEAK_HOUR)]
    assert around[1] > 5 * around[0]
    with_more = day(random.Random(1), peak_gpus=2, bursts=4)
    assert len(with_more) == len(requests) + 10


@pytest.mark.parametrize("hour", range(24))
def test_the_load_is_a_share_of_the_peak(hour: int) -> None:
    assert 0.05 <= load_at(hour * 3600) <= load_at(PEAK_HOUR * 3600) == 1
